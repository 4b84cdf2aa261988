#include "ttpu/pjrt/compile_options.h"

#include "testing.h"

namespace ttpu::pjrt {
namespace {

TEST(CompileOptions, AreEncodedAsTheProtobufSays) {
  CompileOptions options;
  options.num_partitions = 2;
  options.device_assignment = {0, 1};
  options.overrides = {{"xla_f", true}};
  // build options {1: -1, 4: 1, 5: 2, 6: 1, 9: {1: 1, 2: 2, 3: {1: 0}, 3: {1: 1}}, 19: 1},
  // override {1: "xla_f", 2: {2: 1}}
  const std::string expected(
      "\x1a\x22"
      "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
      "\x20\x01\x28\x02\x30\x01"
      "\x4a\x0c\x08\x01\x10\x02\x1a\x02\x08\x00\x1a\x02\x08\x01"
      "\x98\x01\x01"
      "\x3a\x0b\x0a\x05xla_f\x12\x02\x10\x01",
      49);
  EXPECT_EQ(encode_compile_options(options), expected);
}

TEST(CompileOptions, FlagsKeepTheirTypes) {
  CompileOptions options;
  add_xla_flags(options, " --xla_a --xla_b=false --xla_c=12 --xla_d=0.5 --xla_e=text ");
  EXPECT_EQ(options.overrides.at("xla_a"), OptionValue(true));
  EXPECT_EQ(options.overrides.at("xla_b"), OptionValue(false));
  EXPECT_EQ(options.overrides.at("xla_c"), OptionValue(int64_t{12}));
  EXPECT_EQ(options.overrides.at("xla_d"), OptionValue(0.5f));
  EXPECT_EQ(options.overrides.at("xla_e"), OptionValue(std::string("text")));
  EXPECT_THROW(add_xla_flags(options, "xla_a=1"), Error);
}

TEST(CompileOptions, HintsThatThePluginLacksAreLeftOut) {
  CompileOptions options;
  options.overrides = {{"xla_given", true}};
  options.hints = {{"xla_new", 0.5f}, {"xla_old", true}};
  std::vector<std::string> attempts;
  const auto refusing = [&](const std::string& name) {
    return [&attempts, name](const std::string& encoded) {
      attempts.push_back(encoded);
      if (encoded.find(name) != std::string::npos) {
        fail(Code::kInvalidArgument, "No such compile option: '{}'", name);
      }
    };
  };
  compile_with_hints(options, refusing("xla_new"));
  ASSERT_EQ(attempts.size(), 2);
  EXPECT_NE(attempts[1].find("xla_old"), std::string::npos);
  EXPECT_NE(attempts[1].find("xla_given"), std::string::npos);
  EXPECT_THROW(compile_with_hints(options, refusing("xla_given")), Error);
}

TEST(CompileOptions, ImpossibleCountsAreRefused) {
  CompileOptions options;
  options.num_partitions = 0;
  EXPECT_THROW(encode_compile_options(options), Error);
  options.num_partitions = 4;
  options.device_assignment = {0, 1};
  const Error error = error_of([&] { encode_compile_options(options); });
  EXPECT_TRUE(contains(error, "has 2 devices")) << error.what();
}

}  // namespace
}  // namespace ttpu::pjrt
