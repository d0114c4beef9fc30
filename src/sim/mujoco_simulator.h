// The simulation seam filled by MuJoCo: each environment stepped by MuJoCo's own pipeline, spread over threads.
//
// Implicit PD drives: joints have neither stiffness nor damping in the model; every substep of length h adds
// h kd + h² kp to each DoF's armature and applies kp (target - q) - (kd + h kp) v, so that the constraint solver
// sees the same M + h kd + h² kp as the smooth dynamics. Beyond a per-axis limit of a ball joint a spring and damper
// join the drive in the same way. Hinge and cone limits are MuJoCo's own.
//
// Memory: an environment is its qpos, qvel and warm start; mjModel (for the armatures) and mjData belong to a worker.
// push() changes the velocities at once, by the impulse at the body's centre of mass that gives it the wanted
// change while its joints pass the impulse on; the views show it after the next step.
#pragma once

#include <mujoco/mujoco.h>

#include <atomic>
#include <mutex>

#include "sim/compile.h"
#include "sim/coordinates.h"
#include "sim/simulator.h"

namespace calm {

class MujocoSimulator final : public Simulator {
 public:
  MujocoSimulator(const Character& character, const std::vector<Prop>& props, const PhysicsSettings& settings,
                  int num_envs, ThreadPool& pool);

  const BatchState& state() const override { return state_; }
  void set_state(int env, const RootState& root, std::span<const float> dof_pos,
                 std::span<const float> dof_vel) override;
  void set_prop(int env, int prop, const RootState& state) override;
  void step(std::span<const float> pd_targets) override;
  void push(int env, int body, const Vec3& impulse) override;
  int64_t num_diverged() const override { return num_diverged_; }
  std::vector<double> save(int env) const override;
  void restore(int env, std::span<const double> saved) override;
  // Counts substeps in which MuJoCo ran out of room for contacts or constraints.
  int64_t num_overflows() const override { return num_overflows_; }

 private:
  // One thread's scratch: nothing in it outlives the step of an environment.
  struct Worker {
    explicit Worker(const Character& character) : kinematics(character) {}
    MujocoModel model;
    MujocoData data;
    CharacterState kinematics;
    std::vector<double> dof_pos, inertial;
  };

  struct Dof {
    double kp, kd, armature;
    double limit_lower, limit_upper;        // ball joints; infinite for hinges
    double limit_stiffness, limit_damping;  // beyond the limit
  };

  void compile(const Character& character, const std::vector<Prop>& props, const PhysicsSettings& settings);
  void step_env(int env, const float* targets, Worker& worker);
  bool simulate(int env, const float* targets, Worker& worker);  // false: not finite
  void apply_drives(const float* targets, Worker& worker);
  void limit_speeds(double* qvel) const;
  template <class T>
  void read_dof_pos(const double* qpos, T* dof_pos) const;
  void read_contact_forces(int env, Worker& worker);
  float residual(Worker& worker) const;
  void put_back(int env);
  void refresh_view(int env, CharacterState& scratch);

  double* qpos(int env) { return &qpos_[static_cast<size_t>(env) * nq_]; }
  double* qvel(int env) { return &qvel_[static_cast<size_t>(env) * nv_]; }
  double* warmstart(int env) { return &warmstart_[static_cast<size_t>(env) * nv_]; }
  double* set_qpos(int env) { return &set_qpos_[static_cast<size_t>(env) * nq_]; }
  double* set_qvel(int env) { return &set_qvel_[static_cast<size_t>(env) * nv_]; }

  const Character& character_;
  ThreadPool& pool_;
  int num_props_;
  int substeps_;
  double timestep_;
  double max_ang_vel_;
  int nq_ = 0, nv_ = 0;
  std::unique_ptr<Coordinates> coordinates_;
  std::vector<int> joint_qpos_;  // first of joint's positions in qpos
  std::vector<Dof> dofs_;
  std::vector<Worker> workers_;
  MujocoModel plain_model_;  // without drives, for push()
  MujocoData push_data_;
  std::mutex push_mutex_;

  BatchState state_;
  std::vector<double> qpos_;                 // (env x nq)
  std::vector<double> qvel_;                 // (env x nv)
  std::vector<double> warmstart_;            // (env x nv) last acceleration, where the solver starts
  std::vector<double> set_qpos_, set_qvel_;  // last set state, where a diverged environment goes
  std::atomic<int64_t> num_diverged_ = 0, num_overflows_ = 0;
};

}  // namespace calm
