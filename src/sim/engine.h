// Steps blocks of environments, as many as it has lanes; one for each thread. Behind it the same source for every
// width.
#pragma once

#include <memory>
#include <vector>

#include "sim/model.h"

namespace calm {

// Rows of environments' state and targets, lane by lane: entry i of lane l is at [i * lanes + l].
template <class S>
struct LaneRows {
  S* positions = nullptr;      // (num_positions) see model.h
  S* velocities = nullptr;     // (num_velocities)
  S* accelerations = nullptr;  // (num_velocities) where the solver starts
  const S* targets = nullptr;  // (dofs) of the PD drives, rad
};

// What a step reports, lane by lane as above.
template <class S>
struct LaneReport {
  S* body_pos = nullptr;       // (bodies + props x 3) m, world
  S* body_rot = nullptr;       // (bodies + props x 4) x y z w
  S* body_vel = nullptr;       // (bodies + props x 3) m/s, of the body frame's origin
  S* body_ang_vel = nullptr;   // (bodies + props x 3) rad/s, world
  S* contact_force = nullptr;  // (bodies + props x 3) N, world, of the last substep
  S* dof_pos = nullptr;        // (dofs) rad
  S* broken = nullptr;         // 1: not finite, or exploded
  S* contacts = nullptr;       // of the last substep
  S* residual = nullptr;       // the solver's, greatest of the substeps
  S* iterations = nullptr;     // the solver's, sum over the substeps

  // Numbers that a lane takes; bodies: with the props.
  CALM_DEVICE static constexpr int width(int bodies, int dofs) { return 16 * bodies + dofs + 4; }

  // Over memory of width() numbers for each lane.
  CALM_DEVICE static LaneReport over(S* memory, int bodies, int dofs, int lanes) {
    const auto take = [&](int rows) {
      S* at = memory;
      memory += rows * lanes;
      return at;
    };
    LaneReport r;
    r.body_pos = take(3 * bodies), r.body_rot = take(4 * bodies), r.body_vel = take(3 * bodies);
    r.body_ang_vel = take(3 * bodies), r.contact_force = take(3 * bodies), r.dof_pos = take(dofs);
    r.broken = take(1), r.contacts = take(1), r.residual = take(1), r.iterations = take(1);
    return r;
  }
};

// One lane's quantities before a substep, for checks.
struct Inspection {
  struct Contact {
    int shape_a = -1, shape_b = 0;  // rows of the model; -1: the floor
    double point[3];                // world
    double normal[3], tangent[3], distance = 0.0;
    double force[3];  // on b, world, N
  };
  std::vector<double> mass;  // (velocities x velocities) with the drives
  std::vector<double> bias, unconstrained, acceleration;
  std::vector<Contact> contacts;
  double residual = 0.0;
};

template <class S>
class Engine {
 public:
  virtual ~Engine() = default;
  virtual int lanes() const = 0;
  // One control step.
  virtual void step(const LaneRows<S>& rows, const LaneReport<S>& report) = 0;
  virtual Inspection inspect(const LaneRows<S>& rows, int lane) = 0;
};

// `model` must outlive the engine. Each width is a library of its own (CMakeLists.txt), compiled for processors that
// have it: call only what the processor has.
std::unique_ptr<Engine<double>> make_scalar_engine(const ModelView<double>& model);
std::unique_ptr<Engine<float>> make_base_engine(const ModelView<float>& model);
#ifdef CALM_WITH_X86_LANES
std::unique_ptr<Engine<float>> make_avx2_engine(const ModelView<float>& model);
std::unique_ptr<Engine<float>> make_avx512_engine(const ModelView<float>& model);
#endif

}  // namespace calm
