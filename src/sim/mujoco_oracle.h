// MuJoCo as oracle: its model of the problem that the simulators solve (compile.h), set from a simulator's saved state.
//
// A saved state begins with MuJoCo's qpos and qvel, whichever backend saved it. Only public functions of MuJoCo and the
// drives' definition stand between the state and the answer: none of the batched simulator's code.
// Owns its model and data; one thread at a time. Character must outlive it.
#pragma once

#include <span>

#include "sim/compile.h"
#include "sim/engine.h"

namespace calm {

// A contact as both sides can tell it: between geoms of MuJoCo's model, first < second; the floor is 0.
struct OracleContact {
  int first = 0, second = 0;
  Eigen::Vector3d point, normal, tangent;  // normal from first to second
  double distance = 0.0;
};

class MujocoOracle {
 public:
  MujocoOracle(const Character& character, const std::vector<Prop>& props, const PhysicsSettings& settings);

  const mjModel& model() const { return *model_; }
  const mjData& data() const { return *data_; }
  int nq() const { return model_->nq; }
  int nv() const { return model_->nv; }
  // Geom of a shape as the batched simulator's tables number it: index into Character::shapes, then the props.
  int geom_of(int shape) const { return geom_of_[shape]; }
  int shape_of(int geom) const { return shape_of_[geom]; }  // -1: the floor

  // Takes qpos and qvel from a saved state; the solver will start from nothing.
  void set(std::span<const double> saved);

  // All stages up to the acceleration, drives towards `targets` included. contacts: MuJoCo's own if null, else these.
  void forward(std::span<const float> targets, const std::vector<OracleContact>* contacts = nullptr);
  // From there to the end of the substep: MuJoCo's Euler step and the simulators' bound on angular speeds.
  void integrate();

  // As of the last forward().
  Eigen::MatrixXd mass_matrix() const;  // drives included
  std::vector<OracleContact> contacts() const;
  std::vector<double> contact_forces() const;  // (bodies + props x 3) world, N

  // Without drives, at the state set.
  struct Plain {
    Eigen::MatrixXd mass;  // as mass_matrix()
    Eigen::VectorXd bias;
    double total_mass = 0.0, kinetic = 0.0;  // kg, J
    Eigen::Vector3d momentum, spin;          // of all bodies; spin: angular momentum about their centre of mass
  };
  Plain plain();

  // Positions of the DoFs at the state set, rad.
  std::vector<double> dof_pos() const;

 private:
  void apply_drives(std::span<const float> targets);
  void impose(const std::vector<OracleContact>& contacts);

  const Character& character_;
  PhysicsSettings settings_;
  MujocoModel model_;
  MujocoData data_;
  std::vector<int> geom_of_, shape_of_;
};

}  // namespace calm
