#include "runtime/policy.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"

namespace calm {

namespace {

constexpr int kPolicyVersion = 1;

std::string metadata(const SafeTensors& file, const std::string& key, const std::string& where) {
  const auto it = file.metadata.find(key);
  if (it == file.metadata.end()) fail("{}: metadata `{}` is missing; is it a CALM policy?", where, key);
  return it->second;
}

Eigen::VectorXf vector_of(const Tensor& tensor) {
  return Eigen::Map<const Eigen::VectorXf>(tensor.data.data(), static_cast<Eigen::Index>(tensor.data.size()));
}

}  // namespace

Mlp read_mlp(const SafeTensors& file, const std::string& prefix, const std::string& where) {
  Mlp mlp;
  for (int i = 0; i < 64; ++i) {
    const auto name = fmt::format("{}.{}.weight", prefix, i);
    if (!file.tensors.contains(name)) break;
    const Tensor& weight = file.at(name, where);
    const Tensor& bias = file.at(fmt::format("{}.{}.bias", prefix, i), where);
    if (weight.shape.size() != 2 || bias.shape.size() != 1 || bias.shape[0] != weight.shape[0] ||
        (i > 0 && weight.shape[1] != mlp.output_size()))
      fail("{}: layer `{}` does not fit its neighbours", where, name);
    mlp.layers.push_back({ConstRowMatrixMap(weight.data.data(), weight.shape[0], weight.shape[1]),
                          Eigen::Map<const Eigen::VectorXf>(bias.data.data(), bias.shape[0])});
  }
  if (mlp.layers.empty()) fail("{}: no layers named `{}.0.weight`; is it a CALM policy?", where, prefix);
  return mlp;
}

Eigen::VectorXf Mlp::operator()(const Eigen::VectorXf& input) const {
  Eigen::VectorXf x = input;
  for (size_t i = 0; i < layers.size(); ++i) {
    x = layers[i].weight * x + layers[i].bias;
    if (i + 1 < layers.size()) x = x.cwiseMax(0.0f);
  }
  return x;
}

RowMatrix Mlp::operator()(const RowMatrix& inputs) const {
  RowMatrix x = inputs;
  for (size_t i = 0; i < layers.size(); ++i) {
    RowMatrix y(x.rows(), layers[i].weight.rows());
    y.noalias() = x * layers[i].weight.transpose();
    y.rowwise() += layers[i].bias.transpose();
    if (i + 1 < layers.size()) y = y.cwiseMax(0.0f);
    x = std::move(y);
  }
  return x;
}

Eigen::VectorXf Policy::act(const Eigen::VectorXf& obs, const Eigen::VectorXf& z) const {
  Eigen::VectorXf input(actor.input_size());
  input.head(obs.size()) = ((obs - obs_mean).array() * obs_inv_std.array()).cwiseMax(-5.0f).cwiseMin(5.0f);
  input.tail(style.output_size()) = style(z).array().tanh();
  return actor(input).cwiseMax(-1.0f).cwiseMin(1.0f);
}

RowMatrix Policy::embed(const RowMatrix& z) const { return style(z).array().tanh(); }

RowMatrix Policy::act(const ConstRowMatrixMap& obs, const RowMatrix& styles) const {
  RowMatrix input(obs.rows(), actor.input_size());
  input.leftCols(obs.cols()) =
      ((obs.rowwise() - obs_mean.transpose()).array().rowwise() * obs_inv_std.transpose().array())
          .cwiseMax(-5.0f)
          .cwiseMin(5.0f);
  input.rightCols(styles.cols()) = styles;
  return actor(input).cwiseMax(-1.0f).cwiseMin(1.0f);
}

int Policy::latent_index(const std::string& clip) const {
  for (size_t i = 0; i < latents.size(); ++i)
    if (latents[i].name == clip) return static_cast<int>(i);
  return -1;
}

std::vector<NamedLatent> read_latents(const SafeTensors& file, int latent_size, const std::string& where) {
  const Tensor& latents = file.at("latents", where);
  const std::string clips_text = metadata(file, "clips", where);
  std::vector<NamedLatent> out;
  try {
    const auto clips = nlohmann::json::parse(clips_text);
    if (!clips.is_array() || latents.shape.size() != 2 || latents.shape[0] != static_cast<int64_t>(clips.size()) ||
        latents.shape[1] != latent_size)
      fail("{}: the table of latents does not fit the list of clips", where);
    for (size_t i = 0; i < clips.size(); ++i) {
      NamedLatent latent;
      latent.name = clips[i].at("name").get<std::string>();
      latent.tags = clips[i].at("tags").get<std::vector<std::string>>();
      latent.duration = clips[i].at("duration").get<float>();
      latent.z = Eigen::Map<const Eigen::VectorXf>(latents.data.data() + i * latent_size, latent_size);
      out.push_back(std::move(latent));
    }
  } catch (const nlohmann::json::exception& e) {
    fail("{}: damaged list of clips: {}", where, e.what());
  }
  return out;
}

Policy load_policy(const std::filesystem::path& path) {
  const auto file_path = std::filesystem::is_directory(path) ? path / "policy.safetensors" : path;
  return parse_policy(read_file(file_path), file_path.string());
}

Policy parse_policy(const std::string& bytes, const std::string& where) {
  const SafeTensors file = parse_safetensors(bytes, where);
  Policy policy;
  if (metadata(file, "format", where) != "calm.low_level")
    fail("{}: is a `{}`, not a low-level policy", where, file.metadata.at("format"));
  if (metadata(file, "version", where) != std::to_string(kPolicyVersion))
    fail("{}: policy version {}, this program reads {}", where, file.metadata.at("version"), kPolicyVersion);
  policy.character_name = metadata(file, "character", where);
  policy.character_mjcf = metadata(file, "character_mjcf", where);
  policy.settings = metadata(file, "settings", where);
  try {
    policy.character_hash = std::stoull(metadata(file, "character_hash", where), nullptr, 16);
  } catch (const std::logic_error&) {
    fail("{}: metadata `character_hash` is not a number", where);
  }

  policy.style = read_mlp(file, "actor.style", where);
  policy.actor = read_mlp(file, "actor.body", where);
  policy.obs_mean = vector_of(file.at("obs_norm.mean", where));
  policy.obs_inv_std = vector_of(file.at("obs_norm.inv_std", where));
  policy.latent_size = policy.style.input_size();
  if (policy.obs_mean.size() != policy.obs_inv_std.size() ||
      policy.obs_mean.size() + policy.style.output_size() != policy.actor.input_size())
    fail("{}: normaliser, style branch and actor do not fit together", where);

  policy.latents = read_latents(file, policy.latent_size, where);
  for (const auto& [name, tensor] : file.tensors)
    if (!vector_of(tensor).allFinite()) fail("{}: tensor `{}` holds numbers that are not finite", where, name);
  return policy;
}

void check_policy_fits(const Policy& policy, const Character& character, const std::filesystem::path& path) {
  if (policy.character_hash == character.hash) return;
  if (policy.obs_mean.size() != character.observation_size() || policy.actor.output_size() != character.num_dofs)
    fail("{}: was trained for `{}`; `{}` has other bodies or joints; give --character the file it was trained with",
         path.string(), policy.character_name, character.path.string());
  fail("{}: was trained for another version of `{}` than {}; train again or restore that file", path.string(),
       policy.character_name, character.path.string());
}

}  // namespace calm
