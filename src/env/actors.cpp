#include "env/actors.h"

#include <yaml-cpp/yaml.h>

#include "base/error.h"
#include "base/pack.h"
#include "base/settings.h"
#include "features/features.h"
#include "sim/fall.h"

namespace calm {

namespace {

constexpr int kBlock = 128;  // rows that pass through the networks at a time; fixed, so that threads change nothing

}  // namespace

PhysicsSettings physics_of_policy(const Policy& policy) {
  PhysicsSettings physics;
  YAML::Node root;
  try {
    root = YAML::Load(policy.settings);
  } catch (const YAML::Exception& e) {
    fail("policy for {}: its settings are not YAML: {}", policy.character_name, e.what());
  }
  if (!root.IsMap()) return physics;
  // the training's settings hold a block `physics`, at the top or inside the environment's block
  YAML::Node block = root["physics"];
  for (auto it = root.begin(); !block && it != root.end(); ++it)
    if (it->second.IsMap() && it->second["physics"]) block.reset(it->second["physics"]);
  if (block) read_settings(physics, block, "policy settings: physics");
  return physics;
}

Actors::Actors(const Policy& policy, const Character& character, const PhysicsSettings& physics,
               const std::string& backend, int count, ThreadPool& pool, const std::vector<Prop>& props)
    : policy_(policy),
      character_(character),
      pool_(pool),
      simulator_(make_simulator(backend, character, physics, count, pool, props)),
      latents_(RowMatrix::Zero(count, policy.latent_size)),
      styles_(RowMatrix::Zero(count, policy.style.output_size())),
      obs_(RowMatrix::Zero(count, character.observation_size())),
      stale_(count, 1),
      steps_(count, 0),
      targets_(static_cast<size_t>(count) * character.num_dofs) {
  latents_.col(0).setOnes();
  for (int i = 0; i < count; ++i) write_observation(character_, view(i), obs_.row(i).data());
}

RootState Actors::prop(int i, int prop) const {
  const BatchState& s = state();
  const size_t row = static_cast<size_t>(i) * s.num_props + prop;
  return {ConstVec3Map(&s.prop_pos[3 * row]), Quat(ConstQuatMap(&s.prop_rot[4 * row])),
          ConstVec3Map(&s.prop_vel[3 * row]), ConstVec3Map(&s.prop_ang_vel[3 * row])};
}

void Actors::place(int i, const RootState& root, std::span<const float> dof_pos, std::span<const float> dof_vel) {
  simulator_->set_state(i, root, dof_pos, dof_vel);
  steps_[i] = 0;
  write_observation(character_, view(i), obs_.row(i).data());
}

void Actors::set_latent(int i, const Eigen::Ref<const Eigen::VectorXf>& z) {
  latents_.row(i) = z.transpose();
  stale_[i] = 1;
}

void Actors::step() {
  const int dofs = character_.num_dofs, blocks = (size() + kBlock - 1) / kBlock;
  pool_.parallel_for(blocks, 1, [&](int block, int) {
    const int begin = block * kBlock, rows = std::min(kBlock, size() - begin);
    std::vector<int> changed;
    for (int i = begin; i < begin + rows; ++i)
      if (std::exchange(stale_[i], uint8_t{0})) changed.push_back(i);
    if (!changed.empty()) {
      const RowMatrix fresh = policy_.embed(latents_(changed, Eigen::all));
      for (size_t k = 0; k < changed.size(); ++k) styles_.row(changed[k]) = fresh.row(static_cast<Eigen::Index>(k));
    }
    const RowMatrix actions =
        policy_.act(ConstRowMatrixMap(obs_.row(begin).data(), rows, obs_.cols()), styles_.middleRows(begin, rows));
    for (int i = 0; i < rows; ++i)
      for (int d = 0; d < dofs; ++d)
        targets_[static_cast<size_t>(begin + i) * dofs + d] =
            character_.action_offset[d] + character_.action_scale[d] * actions(i, d);
  });
  simulate();
}

void Actors::step(std::span<const float> actions) {
  const int dofs = character_.num_dofs;
  for (size_t k = 0; k < targets_.size(); ++k)
    targets_[k] = character_.action_offset[k % dofs] + character_.action_scale[k % dofs] * actions[k];
  simulate();
}

void Actors::simulate() {
  simulator_->step(targets_);
  pool_.parallel_for(size(), 16, [&](int i, int) {
    ++steps_[i];
    write_observation(character_, view(i), obs_.row(i).data());
  });
}

bool Actors::fallen(int i) const {
  return state().diverged[i] || (steps_[i] > 2 && touches_while_low(character_, state(), i));
}

std::string Actors::save() const {
  Packer out;
  const auto put_rows = [&](const RowMatrix& rows) {
    out.put_array(std::span<const float>(rows.data(), static_cast<size_t>(rows.size())));
  };
  put_rows(latents_), put_rows(obs_);
  out.put_array(std::span<const int>(steps_));
  for (int i = 0; i < size(); ++i) out.put_array(std::span<const double>(simulator_->save(i)));
  return out.bytes;
}

void Actors::restore(const std::string& saved) {
  Unpacker in(saved);
  std::vector<float> rows;
  std::vector<double> simulated;
  for (RowMatrix* to : {&latents_, &obs_}) {
    rows.resize(static_cast<size_t>(to->size()));
    in.get_array(rows);
    *to = ConstRowMatrixMap(rows.data(), to->rows(), to->cols());
  }
  in.get_array(steps_);
  for (int i = 0; i < size(); ++i) {
    in.get_array(simulated, true);
    simulator_->restore(i, simulated);
  }
  in.finish();
  std::ranges::fill(stale_, uint8_t{1});
}

}  // namespace calm
