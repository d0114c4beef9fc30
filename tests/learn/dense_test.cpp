// The learner's own layers against LibTorch's: values, and gradients by every input.
#include "learn/dense.h"

#include <gtest/gtest.h>

#include "learn/networks.h"

namespace calm {
namespace {

void expect_close(const char* what, const torch::Tensor& got, const torch::Tensor& expected) {
  ASSERT_EQ(got.sizes(), expected.sizes()) << what;
  const double scale = std::max(1.0, expected.abs().max().item<double>());
  EXPECT_LT((got - expected).abs().max().item<double>(), 1e-5 * scale) << what;
}

torch::Tensor leaf(at::IntArrayRef sizes) { return torch::randn(sizes).requires_grad_(); }

// Every element of a sum has a weight of its own; none cancels another, so that sums keep their digits.
torch::Tensor weights_of(at::IntArrayRef sizes) {
  int64_t count = 1;
  for (const int64_t size : sizes) count *= size;
  return torch::linspace(0.5, 1.5, count).reshape(sizes);
}

// Gradients of that sum; y's graph is kept.
std::vector<torch::Tensor> gradients(const torch::Tensor& y, const std::vector<torch::Tensor>& inputs) {
  return torch::autograd::grad({(y * weights_of(y.sizes())).sum()}, inputs, {}, true);
}

// On one thread and on two the products are of different libraries.
class DenseTest : public testing::TestWithParam<std::tuple<int, int>> {  // rows, threads
 protected:
  void SetUp() override { set_math_threads(std::get<1>(GetParam())); }
  int rows() const { return std::get<0>(GetParam()); }
};

TEST_P(DenseTest, IsLinearAndRelu) {
  torch::manual_seed(1);
  const auto x = leaf({rows(), 37}), s = leaf({rows(), 5}), weight = leaf({19, 42}), bias = leaf({19});
  for (const bool relu : {false, true}) {
    const auto got = dense(x, s, weight, bias, relu);
    auto expected = torch::linear(torch::cat({x, s}, 1), weight, bias);
    if (relu) expected = torch::relu(expected);
    expect_close("output", got, expected);
    const auto got_gradients = gradients(got, {x, s, weight, bias});
    const auto expected_gradients = gradients(expected, {x, s, weight, bias});
    for (size_t i = 0; i < got_gradients.size(); ++i) expect_close("gradient", got_gradients[i], expected_gradients[i]);
  }
}

TEST_P(DenseTest, TakesOneInputOrOneThatNeedsNoGradient) {
  torch::manual_seed(2);
  const auto x = torch::randn({rows(), 42}), weight = leaf({1, 42}), bias = leaf({1});
  const auto whole = dense(x, {}, weight, bias, false);
  expect_close("whole", whole, torch::linear(x, weight, bias));
  const auto s = x.narrow(1, 30, 12).clone().requires_grad_();
  const auto parts = dense(x.narrow(1, 0, 30), s, weight, bias, false);
  expect_close("parts", parts, whole);
  expect_close("gradient of weight", gradients(parts, {weight})[0], gradients(whole, {weight})[0]);
  expect_close("gradient of part", gradients(parts, {s})[0], weights_of({rows(), 1}) * weight.narrow(1, 30, 12));
}

// below, at and beyond a block, and no whole number of blocks
INSTANTIATE_TEST_SUITE_P(Rows, DenseTest, testing::Combine(testing::Values(1, 7, 512, 1300), testing::Values(1, 2)));

TEST(Dense, ProductAndGramAreLibTorchs) {
  torch::manual_seed(3);
  const auto a = leaf({8, 30}), b = leaf({30, 11});
  const auto ab = product(a, b), expected = a.matmul(b);
  expect_close("product", ab, expected);
  expect_close("by a", gradients(ab, {a})[0], gradients(expected, {a})[0]);
  expect_close("by b", gradients(ab, {b})[0], gradients(expected, {b})[0]);
  const auto columns = a.narrow(1, 3, 20);
  const auto squares = gram(columns), expected_squares = columns.matmul(columns.t());
  expect_close("gram", squares, expected_squares);
  expect_close("by w", gradients(squares, {a})[0], gradients(expected_squares, {a})[0]);
}

TEST(Networks, WithoutGradientsBlockByBlockIsTheSame) {
  Rng rng(5);
  StyledNet net(20, {6, 12, 4}, {32, 16}, 3);
  for (const MlpNet* part : {&net.style(), &net.body()}) init_default(*part, rng);
  torch::manual_seed(4);
  const auto x = torch::randn({1300, 20}), z = torch::randn({1300, 6});
  const auto expected = net.forward(x, z).detach();
  const torch::NoGradGuard no_grad;
  expect_close("output", net.forward(x, z), expected);
}

TEST(Networks, SquaredGradientIsAutogradsOwn) {
  for (const std::vector<int>& hidden : {std::vector<int>{}, std::vector<int>{24}, std::vector<int>{24, 16, 8}}) {
    Rng rng(6);
    StyledNet net(20, {6, 12, 4}, hidden, 1);
    for (const MlpNet* part : {&net.style(), &net.body()}) init_default(*part, rng);
    torch::manual_seed(5);
    const auto x = leaf({9, 20}), z = torch::randn({9, 6});
    const auto got = logits_with_gradient(net, x.detach(), net.embed(z));
    expect_close("logits", got.logits, net.forward(x, z));
    const auto by_x = torch::autograd::grad({net.forward(x, z).sum()}, {x})[0];
    expect_close("squared gradient", got.squared_gradient, by_x.square().sum(1));
  }
}

}  // namespace
}  // namespace calm
