#include "ttpu/io/config.h"

#include "testing.h"
#include "ttpu/io/gguf_config.h"
#include "ttpu/io/gguf_tokenizer.h"
#include "ttpu/text/tokenizer.h"

namespace ttpu::io {
namespace {

namespace fs = std::filesystem;

// The reference's own token ids, for every prompt that it has.
void expect_reference_ids(const char* gguf, const char* reference) {
  const fs::path path = real_model(gguf);
  const auto tokenizer = text::Tokenizer::from_source(load_model_files(path).tokenizer);
  const Json items =
      read_json(fs::path(TTPU_SOURCE_DIR) / "tests/fixtures/reference" / reference).at("items");
  ASSERT_FALSE(items.empty());
  for (const Json& item : items) {
    const bool chat = item.at("kind") == "chat";  // its text has the begin token already
    EXPECT_EQ(tokenizer.encode(item.at("text").get<std::string>(), !chat),
              item.at("prompt_ids").get<std::vector<int32_t>>());
    EXPECT_EQ(tokenizer.decode(item.at("output_ids").get<std::vector<int32_t>>(), false),
              item.at("output_text").get<std::string>());
  }
}

TEST(ConfigTest, SmolLm2sTokensAreTheReferences) {
  expect_reference_ids("smollm2-135m-instruct-q4_1.gguf", "smollm2-135m-instruct.json");
}

TEST(ConfigTest, Gemma3sTokensAreTheReferences) {
  expect_reference_ids("gemma3-270m-q4_k_m.gguf", "gemma3-270m.json");
}

TEST(ConfigTest, SmolLm2sDigitsAreTokensOfTheirOwn) {
  const fs::path path = real_model("smollm2-135m-instruct-q4_1.gguf");
  const ModelFiles files = load_model_files(path);
  const auto tokenizer = text::Tokenizer::from_source(files.tokenizer);
  EXPECT_EQ(tokenizer.encode("12345").size(), 5u);
  EXPECT_EQ(files.config.at("model_type"), "llama");
  EXPECT_EQ(files.config.at("rms_norm_eps"), 1e-5);
  EXPECT_EQ(files.config.at("rope_parameters").at("rope_theta"), 100000.0);
  EXPECT_EQ(files.config.at("tie_word_embeddings"), true);
  EXPECT_EQ(files.generation_config.at("eos_token_id"), 2);
  EXPECT_NE(files.chat_template.find("<|im_start|>"), std::string::npos);
}

TEST(ConfigTest, Gemma3sLayersAlternate) {
  const fs::path path = real_model("gemma3-270m-q4_k_m.gguf");
  const Json config = load_model_files(path).config;
  EXPECT_EQ(config.at("model_type"), "gemma3_text");
  EXPECT_EQ(config.at("layer_types").at(4), "sliding_attention");
  EXPECT_EQ(config.at("layer_types").at(5), "full_attention");
  EXPECT_EQ(config.at("rope_parameters").at("full_attention").at("rope_theta"), 1e6);
  EXPECT_EQ(config.at("rope_parameters").at("sliding_attention").at("rope_theta"), 1e4);
}

// "llama" with the scores of its pieces, as SentencePiece's BPE has them.
GgufBuilder sentencepiece() {
  GgufBuilder builder;
  builder.text("general.architecture", "llama").text("tokenizer.ggml.model", "llama");
  builder.strings("tokenizer.ggml.tokens", {"<unk>", "<s>", "</s>", "<0x41>", "\u2581", "a", "b",
                                            "ab", "\u2581ab", "\u2581a"});
  builder.f32s("tokenizer.ggml.scores", {0, 0, 0, 0, -9, -9, -9, -2, -3, -1});
  builder.i32s("tokenizer.ggml.token_type", {2, 3, 3, 6, 1, 1, 1, 1, 1, 1});
  builder.u32("tokenizer.ggml.bos_token_id", 1).u32("tokenizer.ggml.unknown_token_id", 0);
  return builder;
}

TEST(ConfigTest, SentencePieceMergesFollowTheScores) {
  const std::string file = sentencepiece().build();
  const Gguf gguf = Gguf::parse(as_bytes(file), "x");
  const auto tokenizer = text::Tokenizer::from_source(gguf_tokenizer(gguf));
  // "_a" scores best, so that "_ab" is put together from "_a" and "b"; begin token by default.
  EXPECT_EQ(tokenizer.encode("ab"), (std::vector<int32_t>{1, 8}));
  EXPECT_EQ(tokenizer.encode("A"), (std::vector<int32_t>{1, 4, 3}));  // a byte of its own
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{1, 8, 8}), "ab ab");
  EXPECT_EQ(gguf_tokenizer_config(gguf).at("bos_token"), "<s>");
  EXPECT_EQ(gguf_tokenizer_config(gguf).at("add_bos_token"), true);
}

TEST(ConfigTest, DamagedTokenizersAreRefused) {
  const auto refusal = [](const GgufBuilder& builder) {
    const std::string file = builder.build();
    const Gguf gguf = Gguf::parse(as_bytes(file), "x");
    return error_of([&] { text::Tokenizer::from_source(gguf_tokenizer(gguf)); });
  };
  const auto start = [](const char* model) {
    GgufBuilder builder;
    builder.text("general.architecture", "llama").text("tokenizer.ggml.model", model);
    return builder;
  };
  EXPECT_NE(refusal(start("bert")).find("known are"), std::string::npos);
  EXPECT_NE(refusal(start("llama")).find("no tokenizer"), std::string::npos);
  EXPECT_NE(refusal(start("gpt2")
                        .strings("tokenizer.ggml.tokens", {"a"})
                        .text("tokenizer.ggml.pre", "klingon"))
                .find("klingon"),
            std::string::npos);
  EXPECT_NE(refusal(start("gpt2")
                        .strings("tokenizer.ggml.tokens", {"a"})
                        .i32s("tokenizer.ggml.token_type", {1, 1}))
                .find("token types"),
            std::string::npos);
  EXPECT_NE(refusal(start("gpt2")
                        .strings("tokenizer.ggml.tokens", {"a", "b"})
                        .strings("tokenizer.ggml.merges", {"a b"}))
                .find("lacks"),
            std::string::npos);
  EXPECT_NE(refusal(start("gpt2").strings("tokenizer.ggml.tokens", {"a\xff"})).find("UTF-8"),
            std::string::npos);
  EXPECT_NE(refusal(start("gpt2")
                        .strings("tokenizer.ggml.tokens", {"a"})
                        .u32("tokenizer.ggml.bos_token_id", 5))
                .find("names 5"),
            std::string::npos);
}

// A vocabulary in which all of "a b12,\u4e2d" would be one token, were it not split.
text::Tokenizer split_as(const char* pre) {
  GgufBuilder builder;
  builder.text("general.architecture", "llama").text("tokenizer.ggml.model", "gpt2");
  builder.text("tokenizer.ggml.pre", pre);
  // The characters that stand for the bytes of " " and of U+4E2D in byte-level vocabularies.
  const std::string space = "\u0120", han[] = {"\u00e4", "\u00b8", "\u0143"};
  const std::vector<std::string> letters = {"a", space, "b", "1", "2", ",", han[0], han[1], han[2]};
  std::vector<std::string> tokens = letters;
  std::vector<std::string> merges;
  for (size_t begin = 0; begin < letters.size(); ++begin) {
    std::string token = letters[begin];
    for (size_t i = begin + 1; i < letters.size(); ++i) {
      merges.push_back(token + " " + letters[i]);
      token += letters[i];
      tokens.push_back(token);
    }
  }
  builder.strings("tokenizer.ggml.tokens", tokens).strings("tokenizer.ggml.merges", merges);
  const std::string file = builder.build();
  return text::Tokenizer::from_source(gguf_tokenizer(Gguf::parse(as_bytes(file), "x")));
}

TEST(ConfigTest, PreTokenizersSplitAsTheirModelsDo) {
  // Words, as their bytes' characters; "." stands for a place between two of them.
  const std::pair<const char*, const char*> cases[] = {
      {"default", "a. b.12.,.\u4e2d"},       {"gpt-2", "a. b.12.,.\u4e2d"},
      {"smollm", "a. b.1.2.,.\u4e2d"},       {"starcoder", "a. b.1.2.,.\u4e2d"},
      {"llama-bpe", "a. b.12.,\u4e2d"},      {"qwen2", "a. b.1.2.,\u4e2d"},
      {"tekken", "a. b.1.2.,\u4e2d"},        {"gpt-4o", "a. b.12.,\u4e2d"},
      {"deepseek-llm", "a. b.1.2.,.\u4e2d"}, {"deepseek-coder", "a. b.1.2.,.\u4e2d"},
      {"deepseek-v3", "a. b.12.,.\u4e2d"},
  };
  for (const auto& [pre, words] : cases) {
    const text::Tokenizer tokenizer = split_as(pre);
    std::string split;
    for (const int32_t id : tokenizer.encode("a b12,\u4e2d", false)) {
      split += (split.empty() ? "" : ".") + tokenizer.decode(std::vector<int32_t>{id});
    }
    EXPECT_EQ(split, words) << pre;
  }
}

TEST(ConfigTest, Llama3sScalingIsRecoveredFromItsDivisors) {
  GgufBuilder builder;
  builder.text("general.architecture", "llama");
  for (const auto& [name, value] :
       std::vector<std::pair<const char*, uint32_t>>{{"block_count", 1},
                                                     {"context_length", 131072},
                                                     {"embedding_length", 8},
                                                     {"attention.head_count", 1},
                                                     {"rope.dimension_count", 8},
                                                     {"vocab_size", 3}}) {
    builder.u32(fmt::format("llama.{}", name), value);
  }
  builder.f32("llama.rope.freq_base", 500000.0f);
  GgufBuilder odd = builder;
  // theta^(-2i/8) for i = 0..3: wavelengths 6, 167, 4443, 118134 against a context of 8192.
  builder.tensor("rope_freqs.weight", {4}, 0, floats({1, 1, 2.6945297f, 8}));
  const std::string file = builder.build();
  const Json config = gguf_config(Gguf::parse(as_bytes(file), "x"));
  EXPECT_EQ(config.at("rope_parameters").at("rope_type"), "llama3");
  EXPECT_EQ(config.at("rope_parameters").at("factor"), 8.0);
  odd.tensor("rope_freqs.weight", {4}, 0, floats({1, 2, 3, 4}));
  const std::string other = odd.build();
  EXPECT_NE(error_of([&] { gguf_config(Gguf::parse(as_bytes(other), "x")); }).find("not Llama 3"),
            std::string::npos);
}

TEST(ConfigTest, AFoldersFilesAreReadAndErrorsNameThem) {
  const fs::path folder = scratch_folder();
  EXPECT_NE(error_of([&] { load_model_files(folder); }).find("no config.json"), std::string::npos);
  write_file(folder / "config.json", R"({"model_type": "llama"})");
  EXPECT_EQ(load_model_files(folder).chat_template, "");
  write_file(folder / "tokenizer_config.json",
             R"({"chat_template": [{"name": "rag", "template": "R"},)"
             R"({"name": "default", "template": "D"}]})");
  EXPECT_EQ(load_model_files(folder).chat_template, "D");
  write_file(folder / "chat_template.json", R"({"chat_template": "J"})");
  EXPECT_EQ(load_model_files(folder).chat_template, "J");
  write_file(folder / "chat_template.jinja", "T");
  write_file(folder / "tokenizer.json", "{}");
  const ModelFiles files = load_model_files(folder);
  EXPECT_EQ(files.chat_template, "T");
  EXPECT_EQ(files.tokenizer.json, "{}");
  EXPECT_TRUE(files.generation_config.empty());
  write_file(folder / "generation_config.json", "[1]");
  EXPECT_NE(error_of([&] { load_model_files(folder); }).find("generation_config.json"),
            std::string::npos);
  write_file(folder / "generation_config.json", R"({"temperature": NaN})");
  EXPECT_NE(error_of([&] { load_model_files(folder); }).find("generation_config.json"),
            std::string::npos);
}

}  // namespace
}  // namespace ttpu::io
