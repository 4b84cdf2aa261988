#include "ttpu/server/fields.h"

#include <gtest/gtest.h>

#include "ttpu/server/generation_request.h"
#include "ttpu/server/ids.h"

namespace ttpu::server {
namespace {

// The error that `read` must throw.
template <typename Read>
ApiError caught(Read read) {
  try {
    read();
  } catch (const ApiError& error) {
    return error;
  }
  ADD_FAILURE() << "nothing was thrown";
  return ApiError(0, "");
}

Json object(const char* text) { return parse_json(text, "test"); }

TEST(Fields, AbsentAndNullAreTheSame) {
  const Json json = object(R"({"a": null})");
  Fields fields(json);
  EXPECT_FALSE(fields.integer("a").has_value());
  EXPECT_FALSE(fields.string("b").has_value());
  fields.finish();
}

TEST(Fields, ReadsEachTypeAndRefusesTheOthers) {
  const Json json = object(
      R"({"i": 5, "d": 0.5, "b": true, "s": "x", "list": ["a"], "ids": [1, 2], "big": 18446744073709551615})");
  Fields fields(json);
  EXPECT_EQ(fields.integer("i"), 5);
  EXPECT_EQ(fields.number("i"), 5.0);
  EXPECT_EQ(fields.number("d"), 0.5);
  EXPECT_EQ(fields.boolean("b"), true);
  EXPECT_EQ(fields.string("s"), "x");
  EXPECT_EQ(fields.strings("s"), std::vector<std::string>{"x"});
  EXPECT_EQ(fields.strings("list"), std::vector<std::string>{"a"});
  EXPECT_EQ(fields.tokens("ids"), (std::vector<int32_t>{1, 2}));
  for (const char* name : {"d", "b", "s", "list", "big"}) {
    const ApiError error = caught([&] { fields.integer(name); });
    EXPECT_EQ(error.status(), 400);
    EXPECT_EQ(error.param(), name);
  }
  EXPECT_EQ(caught([&] { fields.number("b"); }).param(), "b");
  EXPECT_EQ(caught([&] { fields.boolean("i"); }).param(), "i");
  EXPECT_EQ(caught([&] { fields.tokens("list"); }).param(), "list");
}

TEST(Fields, AFieldThatNobodyAskedForIsNamedWithItsPath) {
  const Json json = object(R"({"stream_options": {"include_usage": true, "include_usages": 1}})");
  Fields fields(json);
  auto inner = fields.child("stream_options");
  ASSERT_TRUE(inner.has_value());
  EXPECT_EQ(inner->boolean("include_usage"), true);
  const ApiError error = caught([&] { inner->finish(); });
  EXPECT_EQ(error.param(), "stream_options.include_usages");
  EXPECT_NE(std::string(error.what()).find("did you mean `include_usage`"), std::string::npos);
  fields.finish();
}

TEST(Fields, WhatIsNotOfferedIsRefusedUnlessItAsksForNothing) {
  const Json json = object(R"({"beam": false, "audio": {"voice": "x"}})");
  Fields fields(json);
  fields.refuse("beam", "is not offered", {false});
  fields.refuse("absent", "is not offered");
  EXPECT_EQ(caught([&] { fields.refuse("audio", "is not offered"); }).param(), "audio");
}

TEST(Fields, TheBodyMustBeAnObject) {
  for (const char* text : {"[]", "5", "null", "\"x\""}) {
    const Json json = object(text);
    EXPECT_EQ(caught([&] { Fields fields(json); }).status(), 400);
  }
}

TEST(ApiError, IsAnObjectThatOpenAiClientsRead) {
  const Json json = ApiError(404, "no", "model", "model_not_found").json();
  EXPECT_EQ(json.dump(),
            R"({"error":{"message":"no","type":"invalid_request_error","param":"model",)"
            R"("code":"model_not_found"}})");
  EXPECT_TRUE(ApiError(429, "later").json()["error"]["param"].is_null());
  EXPECT_EQ(ApiError(500, "oh").json()["error"]["type"], "server_error");
}

TEST(ApiError, OfTheEngineNamesTheFieldAtFault) {
  engine::SamplingParams sampling;
  sampling.top_p = 2;
  try {
    engine::validate(sampling, 10);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(to_api_error(error).param(), "top_p");
    EXPECT_EQ(to_api_error(error).status(), 400);
  }
  EXPECT_EQ(to_api_error(Error(Code::kOutOfRange, "long")).code(), "context_length_exceeded");
  EXPECT_EQ(to_api_error(Error(Code::kInternal, "oh")).status(), 500);
}

TEST(DefaultSampling, IsThatOfTheModelAndOpenAisWithoutOne) {
  EXPECT_EQ(default_sampling(Json::object()).temperature, 1);
  const auto told = default_sampling(object(R"({"temperature": 0.6, "top_k": 20, "top_p": 0.95})"));
  EXPECT_EQ(told.temperature, 0.6);
  EXPECT_EQ(told.top_k, 20);
  EXPECT_EQ(told.top_p, 0.95);
  EXPECT_EQ(default_sampling(object(R"({"do_sample": false, "temperature": 0.2})")).temperature, 1);
}

TEST(Fields, NamesNeedNotOutliveTheRead) {
  const Json body = object(R"({"a_field_of_a_long_name_on_the_heap": 1})");
  Fields fields(body);
  {
    std::string name = "a_field_of_a_long_name_on_the_heap";
    EXPECT_EQ(fields.integer(name), 1);
    name.assign(name.size(), 'x');
  }
  EXPECT_NO_THROW(fields.finish());
}

TEST(GenerationRequest, GivesEachChoiceOfAPromptASeedOfItsOwn) {
  GenerationRequest request;
  request.prompts = {{1}, {2}};
  request.n = 2;
  request.seed = 7;
  ASSERT_EQ(request.choices(), 4U);
  EXPECT_EQ(request.engine_request(0).sampling.seed, 7U);
  EXPECT_EQ(request.engine_request(1).sampling.seed, 8U);
  EXPECT_EQ(request.engine_request(2).sampling.seed, 7U);
  EXPECT_EQ(request.engine_request(2).prompt, std::vector<int32_t>{2});
  request.seed.reset();
  EXPECT_NE(request.engine_request(0).sampling.seed, request.engine_request(0).sampling.seed);
}

TEST(Ids, AreUniqueAndClientsMayChooseGoodOnes) {
  EXPECT_NE(random_id("x-"), random_id("x-"));
  EXPECT_TRUE(is_good_id(random_id("req-")));
  EXPECT_FALSE(is_good_id(""));
  EXPECT_FALSE(is_good_id("a b"));
  EXPECT_FALSE(is_good_id("a\r\nx: y"));
  EXPECT_FALSE(is_good_id(std::string(129, 'a')));
}

}  // namespace
}  // namespace ttpu::server
