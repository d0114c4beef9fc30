#include "runtime/policy.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/error.h"

namespace calm {
namespace {

Tensor tensor(std::vector<int64_t> shape, float start = 0.1f) {
  Tensor t;
  size_t count = 1;
  for (const auto n : shape) count *= static_cast<size_t>(n);
  t.shape = std::move(shape);
  for (size_t i = 0; i < count; ++i) t.data.push_back(start + 0.01f * static_cast<float>(i));
  return t;
}

// obs 3, latent 2, style 2, one hidden layer of 4, 2 DoFs
SafeTensors small_policy() {
  SafeTensors file;
  file.tensors["actor.style.0.weight"] = tensor({2, 2});
  file.tensors["actor.style.0.bias"] = tensor({2});
  file.tensors["actor.body.0.weight"] = tensor({4, 5});
  file.tensors["actor.body.0.bias"] = tensor({4}, -0.2f);
  file.tensors["actor.body.1.weight"] = tensor({2, 4}, -0.3f);
  file.tensors["actor.body.1.bias"] = tensor({2});
  file.tensors["obs_norm.mean"] = tensor({3});
  file.tensors["obs_norm.inv_std"] = tensor({3}, 2.0f);
  file.tensors["latents"] = tensor({1, 2});
  file.metadata = {{"format", "calm.low_level"},
                   {"version", "1"},
                   {"character", "human"},
                   {"character_mjcf", "human.xml"},
                   {"character_hash", "00ff"},
                   {"settings", "seed: 1\n"},
                   {"clips", R"([{"name": "walk", "tags": ["move"], "duration": 2.5}])"}};
  return file;
}

TEST(SafeTensorsFile, ThereAndBack) {
  const auto file = small_policy();
  const auto again = parse_safetensors(serialise_safetensors(file), "test");
  EXPECT_EQ(again.metadata, file.metadata);
  ASSERT_EQ(again.tensors.size(), file.tensors.size());
  for (const auto& [name, t] : file.tensors) {
    EXPECT_EQ(again.tensors.at(name).shape, t.shape);
    EXPECT_EQ(again.tensors.at(name).data, t.data);
  }
}

TEST(SafeTensorsFile, EveryTruncationIsAnError) {
  const auto bytes = serialise_safetensors(small_policy());
  for (size_t n = 0; n < bytes.size(); ++n) EXPECT_THROW(parse_safetensors(bytes.substr(0, n), "test"), Error) << n;
}

TEST(SafeTensorsFile, LyingHeadersAreErrors) {
  const auto with_header = [](const std::string& header, size_t data = 8) {
    std::string bytes(8, '\0');
    const uint64_t size = header.size();
    std::memcpy(bytes.data(), &size, 8);
    return bytes + header + std::string(data, '\0');
  };
  const char* headers[] = {
      R"({"a":{"dtype":"F32","shape":[1000000000,1000000000,1000000000],"data_offsets":[0,8]}})",
      R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})",
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,800]}})",
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})",
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}})",
      R"({"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}})",
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
      R"([1, 2])",
      R"({"a":3})",
      R"({"a":)",
  };
  for (const char* header : headers) EXPECT_THROW(parse_safetensors(with_header(header), "test"), Error) << header;
  EXPECT_THROW(parse_safetensors(with_header(std::string(100000, '[')), "test"), Error);
}

TEST(PolicyFile, ActsAsWrittenOut) {
  const auto file = small_policy();
  const Policy policy = parse_policy(serialise_safetensors(file), "test");
  EXPECT_EQ(policy.character_hash, 0xffu);
  EXPECT_EQ(policy.latent_size, 2);
  EXPECT_EQ(policy.latent_index("walk"), 0);
  EXPECT_EQ(policy.latent_index("fly"), -1);

  // by hand: normalise and clamp, tanh of the style branch, ReLU, clamp
  const Eigen::Vector3f obs(0.3f, 90.0f, -0.4f);
  const Eigen::Vector2f z(0.6f, -0.8f);
  float input[5];
  for (int i = 0; i < 3; ++i)
    input[i] = std::clamp(
        (obs[i] - file.tensors.at("obs_norm.mean").data[i]) * file.tensors.at("obs_norm.inv_std").data[i], -5.0f, 5.0f);
  for (int i = 0; i < 2; ++i) {
    float sum = file.tensors.at("actor.style.0.bias").data[i];
    for (int j = 0; j < 2; ++j) sum += file.tensors.at("actor.style.0.weight").data[2 * i + j] * z[j];
    input[3 + i] = std::tanh(sum);
  }
  float hidden[4], action[2];
  for (int i = 0; i < 4; ++i) {
    hidden[i] = file.tensors.at("actor.body.0.bias").data[i];
    for (int j = 0; j < 5; ++j) hidden[i] += file.tensors.at("actor.body.0.weight").data[5 * i + j] * input[j];
    hidden[i] = std::max(hidden[i], 0.0f);
  }
  for (int i = 0; i < 2; ++i) {
    action[i] = file.tensors.at("actor.body.1.bias").data[i];
    for (int j = 0; j < 4; ++j) action[i] += file.tensors.at("actor.body.1.weight").data[4 * i + j] * hidden[j];
    action[i] = std::clamp(action[i], -1.0f, 1.0f);
  }
  const auto ours = policy.act(obs, z);
  EXPECT_NEAR(ours[0], action[0], 1e-6f);
  EXPECT_NEAR(ours[1], action[1], 1e-6f);
}

TEST(PolicyFile, WhatDoesNotFitIsNamed) {
  const auto expect_error = [](const std::function<void(SafeTensors&)>& spoil, const std::string& word) {
    auto file = small_policy();
    spoil(file);
    try {
      parse_policy(serialise_safetensors(file), "policy.safetensors");
      FAIL() << "no error for " << word;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(word), std::string::npos) << e.what();
    }
  };
  expect_error([](auto& f) { f.metadata.erase("format"); }, "format");
  expect_error([](auto& f) { f.metadata["version"] = "9"; }, "version 9");
  expect_error([](auto& f) { f.metadata["format"] = "other"; }, "other");
  expect_error([](auto& f) { f.metadata["character_hash"] = "xyz"; }, "character_hash");
  expect_error([](auto& f) { f.metadata["clips"] = "[]"; }, "latents");
  expect_error([](auto& f) { f.metadata["clips"] = "{"; }, "clips");
  expect_error([](auto& f) { f.tensors.erase("latents"); }, "latents");
  expect_error([](auto& f) { f.tensors["actor.body.1.weight"] = tensor({2, 3}); }, "actor.body.1");
  expect_error([](auto& f) { f.tensors["obs_norm.mean"] = tensor({4}); }, "normaliser");
  expect_error([](auto& f) { f.tensors["latents"].data[0] = NAN; }, "latents");
}

}  // namespace
}  // namespace calm
