// The simulation seam filled by our own engines: environments in blocks of as many as an engine has lanes, blocks
// spread over threads. S is the engines' number: double (one lane, the reference) or float.
//
// Memory: a block's rows (positions, velocities, last accelerations) lie lane by lane; the views are rows of
// environments, written after each step.
#pragma once

#include <atomic>
#include <functional>

#include "sim/compile.h"
#include "sim/coordinates.h"
#include "sim/engine.h"
#include "sim/simulator.h"

namespace calm {

template <class S>
class LaneSimulator final : public Simulator {
 public:
  using MakeEngine = std::function<std::unique_ptr<Engine<S>>(const ModelView<S>&)>;

  LaneSimulator(const Character& character, const std::vector<Prop>& props, const PhysicsSettings& settings,
                int num_envs, ThreadPool& pool, const MakeEngine& make_engine);
  ~LaneSimulator() override;

  const BatchState& state() const override { return state_; }
  void set_state(int env, const RootState& root, std::span<const float> dof_pos,
                 std::span<const float> dof_vel) override;
  void set_prop(int env, int prop, const RootState& state) override;
  void step(std::span<const float> pd_targets) override;
  void push(int env, int body, const Vec3& impulse) override;
  int64_t num_diverged() const override { return num_diverged_; }
  int64_t num_overflows() const override { return 0; }  // there is room for every candidate
  std::vector<double> save(int env) const override;
  void restore(int env, std::span<const double> saved) override;

  // What the engine computes for an environment from its state and these targets (dofs), before a step.
  Inspection inspect(int env, std::span<const float> pd_targets);
  const Model<S>& model() const { return model_; }

 private:
  struct Worker;
  struct Copy {  // of an environment's rows
    std::vector<double> positions, velocities;
  };

  S& position(int env, int i) { return positions_[row(env, i, model_.scalars.num_positions)]; }
  S& velocity(int env, int i) { return velocities_[row(env, i, model_.scalars.num_velocities)]; }
  S& acceleration(int env, int i) { return accelerations_[row(env, i, model_.scalars.num_velocities)]; }
  size_t row(int env, int i, int width) const {
    return (static_cast<size_t>(env / lanes_) * width + i) * lanes_ + env % lanes_;
  }
  LaneRows<S> rows(int block, Worker& worker);
  void gather_targets(int block, std::span<const float> pd_targets, Worker& worker) const;
  void scatter_report(int block, const Worker& worker);
  Copy copy(int env);
  void set(int env, const Copy& from, int first_position, int num_positions, int first_velocity, int num_velocities);
  void put_back(int env);
  void refresh_view(int env);

  const Character& character_;
  ThreadPool& pool_;
  int num_props_;
  Model<S> model_;
  int lanes_ = 1, blocks_ = 0;
  std::vector<Worker> workers_;
  std::unique_ptr<Coordinates> coordinates_;
  BatchState state_;
  std::vector<S> positions_, velocities_, accelerations_;  // (block x row x lane)
  std::vector<S> set_positions_, set_velocities_;          // (env x row) where a diverged environment goes
  std::atomic<int64_t> num_diverged_ = 0;
};

extern template class LaneSimulator<double>;
extern template class LaneSimulator<float>;

}  // namespace calm
