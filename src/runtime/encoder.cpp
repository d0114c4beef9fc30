#include "runtime/encoder.h"

#include "base/error.h"
#include "base/file.h"

namespace calm {

Eigen::VectorXf MotionEncoder::encode(const float* window) const {
  const Eigen::Index size = feature_mean.size();
  Eigen::VectorXf input(net.input_size());
  for (int f = 0; f < frames; ++f) {
    const Eigen::Map<const Eigen::VectorXf> frame(window + f * size, size);
    input.segment(f * size, size) =
        ((frame - feature_mean).array() * feature_inv_std.array()).cwiseMax(-5.0f).cwiseMin(5.0f);
  }
  return net(input).normalized();
}

MotionEncoder load_encoder(const std::filesystem::path& path, const Policy& policy) {
  std::filesystem::path file_path = path;
  if (!std::filesystem::is_directory(path) && path.filename() == "policy.safetensors") file_path = path.parent_path();
  if (std::filesystem::is_directory(file_path)) {
    const auto folder = file_path;
    file_path = folder / "encoder.safetensors";
    if (!std::filesystem::exists(file_path)) file_path = folder / "model.safetensors";
    if (!std::filesystem::exists(file_path))
      fail("{}: neither encoder.safetensors nor model.safetensors is there; a run folder of training has them",
           folder.string());
  }
  const std::string where = file_path.string();
  const SafeTensors file = parse_safetensors(read_file(file_path), where);
  const auto vector_of = [&](const char* name) -> Eigen::VectorXf {
    const Tensor& t = file.at(name, where);
    return Eigen::Map<const Eigen::VectorXf>(t.data.data(), static_cast<Eigen::Index>(t.data.size()));
  };
  MotionEncoder encoder;
  encoder.net = read_mlp(file, "encoder", where);
  encoder.feature_mean = vector_of("feature_norm.mean"), encoder.feature_inv_std = vector_of("feature_norm.inv_std");
  const auto number = [&](const char* key) {
    const auto it = file.metadata.find(key);
    if (it == file.metadata.end()) fail("{}: metadata `{}` is missing; train or export it again", where, key);
    return std::atoi(it->second.c_str());
  };
  encoder.frames = number("encoder_frames"), encoder.stride = number("encoder_stride");
  if (encoder.frames < 1 || encoder.stride < 1 || encoder.feature_mean.size() != encoder.feature_inv_std.size() ||
      encoder.net.input_size() != encoder.frames * encoder.feature_mean.size())
    fail("{}: the encoder's layers, frames and normaliser do not fit together", where);
  if (encoder.net.output_size() != policy.latent_size)
    fail("{}: its latents have {} numbers, the policy's {}; it is of another training", where,
         encoder.net.output_size(), policy.latent_size);
  for (const auto& [name, tensor] : file.tensors)
    for (const float x : tensor.data)
      if (!std::isfinite(x)) fail("{}: tensor `{}` holds numbers that are not finite", where, name);
  return encoder;
}

}  // namespace calm
