#include "learn/dense.h"

#include <dlfcn.h>

#include <algorithm>

namespace calm {

namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// Whether this thread's products run on it alone. Only then do they go to oneDNN, whose OpenMP threads wait for one
// another by spinning: beside other work on the same cores products took ten times as long.
thread_local bool alone = false;

// oneDNN's product, row-major. LibTorch uses it for convolutions only; it is looked up, as not every LibTorch shows it
// and its headers need not be installed.
using Sgemm = int (*)(char transpose_a, char transpose_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
                      int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc);
Sgemm one_dnn() {
  static const auto function = reinterpret_cast<Sgemm>(dlsym(RTLD_DEFAULT, "dnnl_sgemm"));
  return function;
}

// A matrix as a BLAS takes it.
struct Operand {
  explicit Operand(const Tensor& t) : tensor(t) {
    const int64_t rows = t.size(0), columns = t.size(1);
    const bool by_rows = columns == 1 || (t.stride(1) == 1 && (rows == 1 || t.stride(0) >= columns));
    const bool by_columns = rows == 1 || (t.stride(0) == 1 && (columns == 1 || t.stride(1) >= rows));
    if (!by_rows && !by_columns) tensor = t.contiguous();
    transpose = by_rows || !by_columns ? 'N' : 'T';
    leading = transpose == 'N' ? std::max(tensor.stride(0), columns) : std::max(tensor.stride(1), rows);
  }
  const float* data() const { return tensor.data_ptr<float>(); }
  Tensor tensor;
  char transpose;
  int64_t leading;
};

// out = a b, or out += a b. out's rows are contiguous.
void multiply(Tensor out, const Tensor& a, const Tensor& b, bool accumulate) {
  if (!alone || !one_dnn()) {
    if (accumulate)
      out.addmm_(a, b);
    else
      torch::mm_out(out, a, b);
    return;
  }
  if (out.numel() == 0) return;
  const Operand left(a), right(b);
  const int status = one_dnn()(left.transpose, right.transpose, out.size(0), out.size(1), a.size(1), 1.0f, left.data(),
                               left.leading, right.data(), right.leading, accumulate ? 1.0f : 0.0f,
                               out.data_ptr<float>(), std::max(out.stride(0), out.size(1)));
  TORCH_CHECK(status == 0, "oneDNN: sgemm failed with status ", status);
}

void add_bias(Tensor y, const Tensor& bias, bool relu) {
  const int64_t rows = y.size(0), columns = y.size(1);
  const float* b = bias.data_ptr<float>();
  float* row = y.data_ptr<float>();
  for (int64_t r = 0; r < rows; ++r, row += columns) {
    for (int64_t c = 0; c < columns; ++c) row[c] += b[c];
    if (relu)
      for (int64_t c = 0; c < columns; ++c) row[c] = row[c] < 0.0f ? 0.0f : row[c];
  }
}

// The gradient before ReLU, into `out`, and its sum over rows, added to `bias`.
void backward_through_bias(Tensor out, const Tensor& grad, const Tensor& y, bool relu, Tensor bias) {
  const int64_t rows = grad.size(0), columns = grad.size(1);
  const float *g = grad.data_ptr<float>(), *on = y.data_ptr<float>();
  float *o = out.data_ptr<float>(), *sum = bias.data_ptr<float>();
  for (int64_t r = 0; r < rows; ++r, g += columns, on += columns, o += columns) {
    if (relu)
      for (int64_t c = 0; c < columns; ++c) o[c] = on[c] > 0.0f ? g[c] : 0.0f;
    else
      std::copy_n(g, columns, o);
    for (int64_t c = 0; c < columns; ++c) sum[c] += o[c];
  }
}

// s may have no columns; LibTorch's functions take no undefined tensor.
struct Dense : Function<Dense> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& s, const Tensor& weight,
                        const Tensor& bias, bool relu) {
    const int64_t n = x.size(0), i = x.size(1);
    const auto x_weight = weight.narrow(1, 0, i).t(), s_weight = weight.narrow(1, i, s.size(1)).t();
    auto y = torch::empty({n, weight.size(0)}, x.options());
    for (int64_t begin = 0; begin < n; begin += kDenseBlock) {
      const int64_t rows = std::min(kDenseBlock, n - begin);
      const auto block = y.narrow(0, begin, rows);
      multiply(block, x.narrow(0, begin, rows), x_weight, false);
      if (s.size(1) > 0) multiply(block, s.narrow(0, begin, rows), s_weight, true);
      add_bias(block, bias, relu);
    }
    ctx->save_for_backward({x, s, weight, y});
    ctx->saved_data["relu"] = relu;
    ctx->saved_data["x_gradient"] = x.requires_grad();
    ctx->saved_data["s_gradient"] = s.requires_grad();
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &s = saved[1], &weight = saved[2], &y = saved[3];
    const bool relu = ctx->saved_data["relu"].toBool();
    const auto grad = gradients[0].contiguous();
    const int64_t n = x.size(0), i = x.size(1), o = weight.size(0);
    Tensor x_grad, s_grad;
    if (ctx->saved_data["x_gradient"].toBool()) x_grad = torch::empty_like(x, torch::MemoryFormat::Contiguous);
    if (ctx->saved_data["s_gradient"].toBool()) s_grad = torch::empty_like(s, torch::MemoryFormat::Contiguous);
    auto weight_grad = torch::empty_like(weight, torch::MemoryFormat::Contiguous);
    auto bias_grad = torch::zeros({o}, weight.options());
    const auto buffer = torch::empty({std::min(kDenseBlock, n), o}, grad.options());
    for (int64_t begin = 0; begin < n; begin += kDenseBlock) {
      const int64_t rows = std::min(kDenseBlock, n - begin);
      const auto block = buffer.narrow(0, 0, rows);
      backward_through_bias(block, grad.narrow(0, begin, rows), y.narrow(0, begin, rows), relu, bias_grad);
      multiply(weight_grad.narrow(1, 0, i), block.t(), x.narrow(0, begin, rows), begin > 0);
      if (x_grad.defined()) multiply(x_grad.narrow(0, begin, rows), block, weight.narrow(1, 0, i), false);
      if (s.size(1) == 0) continue;
      multiply(weight_grad.narrow(1, i, s.size(1)), block.t(), s.narrow(0, begin, rows), begin > 0);
      if (s_grad.defined()) multiply(s_grad.narrow(0, begin, rows), block, weight.narrow(1, i, s.size(1)), false);
    }
    if (n == 0) weight_grad.zero_();
    return {x_grad, s_grad, weight_grad, bias_grad, Tensor()};
  }
};

Tensor multiplied(const Tensor& a, const Tensor& b) {
  auto out = torch::empty({a.size(0), b.size(1)}, a.options());
  multiply(out, a, b, false);
  return out;
}

struct Product : Function<Product> {
  static Tensor forward(AutogradContext* ctx, const Tensor& a, const Tensor& b) {
    ctx->save_for_backward({a, b});
    return multiplied(a, b);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const auto saved = ctx->get_saved_variables();
    return {multiplied(gradients[0], saved[1].t()), multiplied(saved[0].t(), gradients[0])};
  }
};

struct Gram : Function<Gram> {
  static Tensor forward(AutogradContext* ctx, const Tensor& w) {
    ctx->save_for_backward({w});
    return multiplied(w, w.t());
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const Tensor& g = gradients[0];
    return {multiplied(g + g.t(), ctx->get_saved_variables()[0])};
  }
};

}  // namespace

torch::Tensor dense(const torch::Tensor& x, const torch::Tensor& s, const torch::Tensor& weight,
                    const torch::Tensor& bias, bool relu) {
  if (!x.is_cpu()) {  // LibTorch's own: fewer kernels
    const auto y = torch::linear(s.defined() ? torch::cat({x, s}, 1) : x, weight, bias);
    return relu ? torch::relu(y) : y;
  }
  return Dense::apply(x, s.defined() ? s : torch::empty({x.size(0), 0}, x.options()), weight, bias, relu);
}

torch::Tensor product(const torch::Tensor& a, const torch::Tensor& b) {
  return a.is_cpu() ? Product::apply(a, b) : torch::mm(a, b);
}

torch::Tensor gram(const torch::Tensor& w) { return w.is_cpu() ? Gram::apply(w) : torch::mm(w, w.t()); }

// Where OpenBLAS has a pool of its own, that pool gets the threads and LibTorch's OpenMP none: two pools spin against
// each other and halve the speed.
void set_math_threads(int threads) {
  using SetThreads = void (*)(int);
  static const auto openblas = reinterpret_cast<SetThreads>(dlsym(RTLD_DEFAULT, "openblas_set_num_threads"));
  if (openblas) openblas(threads);
  torch::set_num_threads(openblas ? 1 : threads);
  alone = threads == 1;
}

}  // namespace calm
