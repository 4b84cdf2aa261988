#include "op_case.h"

#include <cctype>
#include <cmath>
#include <limits>
#include <sstream>

#include "ttpu/base/file.h"

namespace ttpu::ir::testing {
namespace {

using Environment = std::map<std::string, Value>;

double parse_number(const std::string& text) {
  if (text == "true") return 1;
  if (text == "false") return 0;
  size_t used = 0;
  double value = 0;
  try {
    value = std::stod(text, &used);  // also reads inf and nan
  } catch (const std::exception&) {
    used = 0;
  }
  require(used == text.size() && used > 0, "'{}' is not a number", text);
  return value;
}

// Reads statements of one case and builds them.
class Parser {
 public:
  Parser(std::string text, Function& function) : text_(std::move(text)), function_(function) {}

  // Statements until the end, or until "return a, b }" in a region.
  Values statements(Environment& environment, bool in_region) {
    while (!at_end()) {
      if (word_ahead("fails")) {
        fails(environment);
      } else if (in_region && word_ahead("return")) {
        identifier();
        const Values values = name_list(environment);
        expect('}');
        return values;
      } else {
        statement(environment);
      }
    }
    require(!in_region, "a region without return");
    return {};
  }

 private:
  void statement(Environment& environment) {
    std::vector<std::string> targets{identifier()};
    while (accept(',')) targets.push_back(identifier());
    expect('=');
    const Values results = call(environment);
    require(results.size() == targets.size(), "{} results for {} names", results.size(),
            targets.size());
    for (size_t i = 0; i < targets.size(); ++i) environment[targets[i]] = results[i];
  }

  void fails(Environment& environment) {
    identifier();
    std::string message;
    try {
      call(environment);
    } catch (const Error& error) {
      message = error.what();
    }
    // The call may have been left in the middle: go on behind it.
    position_ = text_.find("with \"", position_);
    require(position_ != std::string::npos, "'fails' without: with \"message\"");
    position_ += 5;
    const std::string wanted = json_value().get<std::string>();
    require(!message.empty(), "nothing failed, expected: {}", wanted);
    require(message.find(wanted) != std::string::npos, "failed with '{}', expected '{}'", message,
            wanted);
  }

  Values call(Environment& environment) {
    CallArguments arguments;
    arguments.function = &function_;
    const std::string name = identifier();
    expect('(');
    while (!accept(')')) {
      argument(environment, arguments);
      accept(',');
    }
    while (accept('{')) arguments.regions.push_back(region(environment));
    return call_builder(name, arguments);
  }

  void argument(const Environment& environment, CallArguments& arguments) {
    if (accept('[')) {
      Values list;
      while (!accept(']')) {
        list.push_back(lookup(environment, identifier()));
        accept(',');
      }
      arguments.positional.push_back(list);
      return;
    }
    const std::string name = identifier();
    if (accept('=')) {
      arguments.named[name] = json_value();
    } else {
      arguments.positional.push_back({lookup(environment, name)});
    }
  }

  // The text of a region is kept and built when the builder calls for it.
  std::function<Values(const Values&)> region(Environment& environment) {
    std::vector<std::string> names;
    if (accept('|')) {
      while (!accept('|')) {
        names.push_back(identifier());
        accept(',');
      }
    }
    const size_t start = position_;
    for (int depth = 1; depth > 0; ++position_) {
      require(position_ < text_.size(), "a region without its closing brace");
      if (text_[position_] == '{') ++depth;
      if (text_[position_] == '}') --depth;
    }
    const std::string body = text_.substr(start, position_ - start);
    Function& function = function_;
    return [body, names, environment, &function](const Values& values) {
      require(values.size() == names.size(), "the region names {} values of {}", names.size(),
              values.size());
      Environment inner = environment;
      for (size_t i = 0; i < names.size(); ++i) inner[names[i]] = values[i];
      return Parser(body, function).statements(inner, true);
    };
  }

  Values name_list(const Environment& environment) {
    Values values;
    skip_space();
    if (position_ < text_.size() && text_[position_] == '}') return values;
    do {
      values.push_back(lookup(environment, identifier()));
    } while (accept(','));
    return values;
  }

  // Numbers, words (as strings), shapes like f32[2,3] (as strings), "strings", [lists], {objects}.
  Json json_value() {
    if (accept('[')) {
      Json list = Json::array();
      while (!accept(']')) {
        list.push_back(json_value());
        accept(',');
      }
      return list;
    }
    if (accept('{')) {
      Json object = Json::object();
      while (!accept('}')) {
        const std::string key = identifier();
        expect('=');
        object[key] = json_value();
        accept(',');
      }
      return object;
    }
    if (accept('"')) {
      const size_t end = text_.find('"', position_);
      require(end != std::string::npos, "a string without its end");
      const std::string value = text_.substr(position_, end - position_);
      position_ = end + 1;
      return value;
    }
    return scalar_value();
  }

  Json scalar_value() {
    skip_space();
    const size_t start = position_;
    while (position_ < text_.size() &&
           (std::isalnum(static_cast<unsigned char>(text_[position_])) ||
            std::string("._+-").find(text_[position_]) != std::string::npos)) {
      ++position_;
    }
    std::string word = text_.substr(start, position_ - start);
    require(!word.empty(), "a value expected at '{}'", text_.substr(start, 20));
    if (word == "true" || word == "false") return word == "true";
    const bool is_number = std::isdigit(static_cast<unsigned char>(word[0])) || word[0] == '-' ||
                           word == "inf" || word == "nan";
    if (is_number) {
      const double number = parse_number(word);
      if (word.find_first_of(".en") == std::string::npos) return static_cast<int64_t>(number);
      return number;
    }
    if (position_ < text_.size() && text_[position_] == '[') {
      const size_t end = text_.find(']', position_);
      word += text_.substr(position_, end + 1 - position_);
      position_ = end + 1;
    }
    return word;
  }

  static Value lookup(const Environment& environment, const std::string& name) {
    const auto found = environment.find(name);
    require(found != environment.end(), "no value is called '{}'", name);
    return found->second;
  }

  void skip_space() {
    while (position_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[position_]))) {
      ++position_;
    }
  }
  bool at_end() {
    skip_space();
    return position_ >= text_.size();
  }
  bool accept(char c) {
    skip_space();
    if (position_ >= text_.size() || text_[position_] != c) return false;
    ++position_;
    return true;
  }
  void expect(char c) {
    require(accept(c), "'{}' expected at '{}'", c, text_.substr(position_, 20));
  }
  bool word_ahead(const std::string& word) {
    skip_space();
    return text_.compare(position_, word.size(), word) == 0 &&
           !std::isalnum(static_cast<unsigned char>(text_[position_ + word.size()]));
  }
  std::string identifier() {
    skip_space();
    const size_t start = position_;
    while (
        position_ < text_.size() &&
        (std::isalnum(static_cast<unsigned char>(text_[position_])) || text_[position_] == '_')) {
      ++position_;
    }
    require(position_ > start, "a name expected at '{}'", text_.substr(start, 20));
    return text_.substr(start, position_ - start);
  }

  std::string text_;
  Function& function_;
  size_t position_ = 0;
};

std::vector<std::vector<double>> parse_values(const std::string& text) {
  std::vector<std::vector<double>> lists(1);
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    if (word == "|") {
      lists.emplace_back();
    } else {
      lists.back().push_back(parse_number(word));
    }
  }
  return lists;
}

// "NAME REST: SHAPE = VALUES"
struct Declaration {
  std::string name;
  std::string rest;
  Shape shape;
  std::vector<std::vector<double>> values;
};

Declaration parse_declaration(const std::string& line) {
  const size_t colon = line.find(':');
  const size_t equals = line.find('=', colon);
  require(colon != std::string::npos && equals != std::string::npos, "'name: shape = values': {}",
          line);
  std::istringstream head(line.substr(0, colon));
  Declaration result;
  head >> result.name;
  std::getline(head, result.rest);
  std::istringstream shape(line.substr(colon + 1, equals - colon - 1));
  std::string shape_text;
  shape >> shape_text;
  result.shape = parse_shape(shape_text);
  result.values = parse_values(line.substr(equals + 1));
  return result;
}

class CaseReader {
 public:
  explicit CaseReader(std::string name) {
    case_.name = std::move(name);
    case_.module = std::make_unique<Module>("test");
    function_ = &case_.module->add_function("main");
  }

  void line(const std::string& line) {
    std::istringstream words(line);
    std::string first;
    words >> first;
    std::string rest;
    std::getline(words, rest);
    if (first == "replicas") {
      case_.replicas = std::stoi(rest);
    } else if (first == "refused") {
      case_.refused = rest.substr(rest.find_first_not_of(' '));
    } else if (first == "mesh") {
      mesh(rest);
    } else if (first == "arg") {
      argument(parse_declaration(rest));
    } else if (first == "expect") {
      expectation(parse_declaration(rest));
    } else {
      program_ += line + "\n";
    }
  }

  OpCase finish() {
    Parser(program_, *function_).statements(environment_, false);
    Values results;
    for (const Expectation& expected : case_.expectations) {
      const auto found = environment_.find(expected.name);
      require(found != environment_.end(), "no value is called '{}'", expected.name);
      results.push_back(found->second);
      if (case_.partitions == 1) {
        require(found->second.shape() == expected.shape, "'{}' is {}, expected {}", expected.name,
                found->second.shape().to_string(), expected.shape.to_string());
      }
    }
    function_->set_results(results);
    case_.module->verify();
    return std::move(case_);
  }

 private:
  void mesh(const std::string& text) {
    std::istringstream words(text);
    Mesh mesh;
    words >> mesh.name;
    for (std::string axis; words >> axis;) {
      const size_t equals = axis.find('=');
      mesh.axes.emplace_back(axis.substr(0, equals), std::stoll(axis.substr(equals + 1)));
    }
    case_.partitions = static_cast<int>(mesh.num_devices());
    mesh_ = mesh.name;
    case_.module->add_mesh(mesh);
  }

  void argument(Declaration declaration) {
    const Value value = function_->add_argument(declaration.shape, declaration.name);
    environment_[declaration.name] = value;
    if (declaration.rest.find('(') != std::string::npos) {
      std::istringstream axes(
          declaration.rest.substr(declaration.rest.find('(') + 1,
                                  declaration.rest.find(')') - declaration.rest.find('(') - 1));
      Sharding sharding{mesh_, {}};
      for (std::string axis; axes >> axis;) {
        sharding.dims.push_back({axis == "-" ? std::vector<std::string>{} : std::vector{axis}});
      }
      function_->set_sharding(value, sharding);
    }
    case_.arguments.push_back({declaration.name, declaration.shape, std::move(declaration.values)});
  }

  void expectation(Declaration declaration) {
    Expectation expected{declaration.name, declaration.shape, std::move(declaration.values), -1};
    const size_t tilde = declaration.rest.find('~');
    if (tilde != std::string::npos) {
      expected.tolerance = std::stod(declaration.rest.substr(tilde + 1));
    }
    case_.expectations.push_back(std::move(expected));
  }

  OpCase case_;
  Function* function_;
  std::string mesh_;
  std::string program_;
  Environment environment_;
};

}  // namespace

Shape parse_shape(const std::string& text) {
  const size_t bracket = text.find('[');
  require(bracket != std::string::npos && text.back() == ']', "'{}' is not a shape", text);
  Shape shape(parse_dtype(text.substr(0, bracket)), {});
  std::istringstream dims(text.substr(bracket + 1, text.size() - bracket - 2));
  for (std::string dim; std::getline(dims, dim, ',');) shape.dims.push_back(std::stoll(dim));
  return shape;
}

std::vector<OpCase> read_cases(const std::filesystem::path& path) {
  std::vector<OpCase> cases;
  std::unique_ptr<CaseReader> reader;
  std::string name;
  const auto finish = [&] {
    if (!reader) return;
    try {
      cases.push_back(reader->finish());
    } catch (const std::exception& error) {
      fail(Code::kInvalidArgument, "{}, case {}: {}", path.filename().string(), name, error.what());
    }
  };
  std::istringstream lines(read_file(path));
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line[0] == '#') continue;
    if (line.rfind("case ", 0) == 0) {
      finish();
      name = line.substr(5);
      reader = std::make_unique<CaseReader>(name);
      continue;
    }
    require(reader != nullptr, "{}: '{}' before the first case", path.string(), line);
    try {
      reader->line(line);
    } catch (const std::exception& error) {
      fail(Code::kInvalidArgument, "{}, case {}: {}", path.filename().string(), name, error.what());
    }
  }
  finish();
  return cases;
}

}  // namespace ttpu::ir::testing
