// A trained low-level controller as a game embeds it: one file, inference with Eigen, no LibTorch.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "character/character.h"
#include "runtime/safetensors.h"

namespace calm {

// A row for each character, or each unit of a layer.
using RowMatrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using ConstRowMatrixMap = Eigen::Map<const RowMatrix>;

// Fully connected layers with ReLU between them. Weights row-major (out x in).
struct Mlp {
  struct Layer {
    RowMatrix weight;
    Eigen::VectorXf bias;
  };
  std::vector<Layer> layers;

  int input_size() const { return layers.empty() ? 0 : static_cast<int>(layers.front().weight.cols()); }
  int output_size() const { return layers.empty() ? 0 : static_cast<int>(layers.back().weight.rows()); }
  Eigen::VectorXf operator()(const Eigen::VectorXf& input) const;
  RowMatrix operator()(const RowMatrix& inputs) const;  // (n x inputs) -> (n x outputs)
};

// The layers `prefix`.0, `prefix`.1, ... of a file that `where` names. Throws Error if there are none or they do not
// fit.
Mlp read_mlp(const SafeTensors& file, const std::string& prefix, const std::string& where);

// A clip the policy knows, by the latent of its middle window.
struct NamedLatent {
  std::string name;
  std::vector<std::string> tags;
  Eigen::VectorXf z;      // unit, (latent_size)
  float duration = 0.0f;  // of the clip, s
};

// Those of a policy or model file that `where` names. Throws Error if the file has none or they do not fit.
std::vector<NamedLatent> read_latents(const SafeTensors& file, int latent_size, const std::string& where);

struct Policy {
  std::string character_name;
  std::string character_mjcf;  // path relative to the repository or the policy file
  uint64_t character_hash = 0;
  int latent_size = 0;
  std::string settings;  // the training's resolved settings, YAML
  Mlp style, actor;      // actor input: normalised observation joined with tanh(style(z))
  Eigen::VectorXf obs_mean, obs_inv_std;
  std::vector<NamedLatent> latents;

  // Mean action, clamped to [-1, 1]; obs: (observation_size), z: unit (latent_size).
  Eigen::VectorXf act(const Eigen::VectorXf& obs, const Eigen::VectorXf& z) const;
  // The same for many characters; a style, which embed() makes of a latent, serves until the latent changes.
  RowMatrix embed(const RowMatrix& z) const;  // (n x latent_size) -> (n x style)
  RowMatrix act(const ConstRowMatrixMap& obs,
                const RowMatrix& styles) const;     // (n x observation_size) -> (n x actions)
  int latent_index(const std::string& clip) const;  // -1 if there is none
};

// Reads policy.safetensors, or a folder that holds one. Throws Error: what, where, what to do.
Policy load_policy(const std::filesystem::path& path);
// The same from the file's bytes; `where` names them in errors.
Policy parse_policy(const std::string& bytes, const std::string& where);

// Throws Error if the policy was made for another character.
void check_policy_fits(const Policy& policy, const Character& character, const std::filesystem::path& path);

}  // namespace calm
