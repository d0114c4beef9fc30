// What the batched simulator knows of a character and the props beside it: flat tables, made once, shared by all
// environments and, as ModelView, readable on a GPU.
//
// Coordinates are MuJoCo's. Positions: for each floating body its position (3, world, m) and rotation (4, w x y z),
// then each joint in order: a hinge's angle, a ball's rotation (4, w x y z, child in parent). Velocities: linear (3,
// world), angular (3, in the body's own frame), then each DoF: a hinge's rate, a ball's angular velocity (3, in the
// child's own frame). The character comes first, then the props.
//
// Links are bodies with those fixed to them folded in. The mass matrix couples a velocity with those between it and
// its root only (Featherstone 2008, ch. 6.5): row i is stored from its diagonal toward the root, entry row_start[i] + k
// its k-th ancestor.
#pragma once

#include <vector>

#include "base/vectors.h"
#include "sim/narrow_phase.h"

namespace calm {

template <class S>
struct LinkRow {
  int parent = -1;  // -1: floats
  int first_joint = 0, num_joints = 0;
  int first_velocity = 0, num_velocities = 0;  // its own
  int last_velocity = 0;                       // that its children's go on from: its last, or its parent's
  int first_position = 0;                      // of a floating link
  bool turned = false;                         // rot is not the identity
  Vec3Of<S> pos{};                             // in the parent link's frame, at zero joint positions, m
  Mat3Of<S> rot{};
  QuatOf<S> quat{};
  S mass{};
  Vec3Of<S> com{};                       // in the link's frame
  S xx{}, yy{}, zz{}, xy{}, xz{}, yz{};  // inertia about the centre of mass, link's axes
  bool skewed = false;                   // any of xy, xz, yz is not 0
};

template <class S>
struct JointRow {
  bool ball = false, anchored = false;  // anchored: the anchor is not the link's origin
  Vec3Of<S> anchor{}, axis{};           // in the link's frame
  int velocity = 0, position = 0, dof = 0;
  bool limited = false;
  S lower{}, upper{};  // of a limited hinge, rad; of a limited ball, its cone's angle is `upper`
  S inverse_weight{};  // MuJoCo's dof_invweight0
};

// PD drive and per-axis limits of a DoF (infinite for hinges, whose limits are constraints).
template <class S>
struct DriveRow {
  S kp{}, kd{};
  S lower{}, upper{}, limit_stiffness{}, limit_damping{};
};

template <class S>
struct ShapeRow {
  ConvexKind kind{};
  int link = 0, body = 0, shape = 0;  // shape: index into Character::shapes, or number of shapes + prop
  bool turned = false;
  Vec3Of<S> pos{}, size{};  // in the link's frame
  Mat3Of<S> rot{};
  S radius{};                            // of a sphere about pos that holds it
  S floor_friction{}, inverse_weight{};  // inverse_weight: MuJoCo's body_invweight0, translational
};

template <class S>
struct PairRow {
  int a = 0, b = 0;  // shapes, a.kind <= b.kind
  S friction{}, inverse_weight{};
  S reach{};  // sum of the radii, squared
};

template <class S>
struct BodyRow {
  int link = 0;
  bool fixed = false;  // to its link, at pos and quat
  Vec3Of<S> pos{};
  QuatOf<S> quat{};
};

template <class S>
struct ModelView {
  int num_links = 0, num_joints = 0, num_positions = 0, num_velocities = 0, num_nonzeros = 0, num_dofs = 0;
  int num_bodies = 0;  // of the character; rows of `bodies` go on with the props
  int num_props = 0, num_shapes = 0, num_pairs = 0;
  const LinkRow<S>* links = nullptr;
  const JointRow<S>* joints = nullptr;
  const DriveRow<S>* drives = nullptr;  // (dofs)
  const ShapeRow<S>* shapes = nullptr;
  const PairRow<S>* pairs = nullptr;
  const BodyRow<S>* bodies = nullptr;    // (bodies + props)
  const S* armature = nullptr;           // (velocities) without drives
  const S* force_scale = nullptr;        // (velocities) 1 / sqrt(inertia in the default pose)
  const int* parent_velocity = nullptr;  // (velocities) next toward the root; -1 at the end
  const int* row_start = nullptr;        // (velocities + 1)
  S timestep{}, gravity{}, max_ang_vel{};
  S reference_stiffness{}, reference_damping{};  // K and B of MuJoCo's constraint reference
  int substeps = 0, solver_iterations = 0;
};

// Room for a model: the model's own numbers, or more than those where addresses are to be constants.
struct Sizes {
  int links = 0, joints = 0, positions = 0, velocities = 0, nonzeros = 0, dofs = 0;
  int bodies = 0;  // props included
  int shapes = 0, contacts = 0;

  template <class S>
  static Sizes of(const ModelView<S>& m, int contacts) {
    return {m.num_links,
            m.num_joints,
            m.num_positions,
            m.num_velocities,
            m.num_nonzeros,
            m.num_dofs,
            m.num_bodies + m.num_props,
            m.num_shapes,
            contacts};
  }
  bool hold(const Sizes& other) const {
    return links >= other.links && joints >= other.joints && positions >= other.positions &&
           velocities >= other.velocities && nonzeros >= other.nonzeros && dofs >= other.dofs &&
           bodies >= other.bodies && shapes >= other.shapes;
  }
};

template <class S>
struct Model {
  ModelView<S> scalars;  // all but the pointers
  std::vector<LinkRow<S>> links;
  std::vector<JointRow<S>> joints;
  std::vector<DriveRow<S>> drives;
  std::vector<ShapeRow<S>> shapes;
  std::vector<PairRow<S>> pairs;
  std::vector<BodyRow<S>> bodies;
  std::vector<S> armature, force_scale;
  std::vector<int> parent_velocity, row_start;

  ModelView<S> view() const {
    return placed([](const auto& table) { return table.data(); });
  }

  // A view of tables that lie elsewhere: place(table) gives the pointer by which the view reads one.
  template <class Place>
  ModelView<S> placed(Place place) const {
    ModelView<S> v = scalars;
    v.links = place(links), v.joints = place(joints), v.drives = place(drives), v.shapes = place(shapes);
    v.pairs = place(pairs), v.bodies = place(bodies), v.armature = place(armature);
    v.force_scale = place(force_scale);
    v.parent_velocity = place(parent_velocity), v.row_start = place(row_start);
    return v;
  }
};

// Standard solref and solimp, which all contacts and limits have.
struct ConstraintStiffness {
  static constexpr double kTimeConstant = 0.02, kDampingRatio = 1.0;                  // s, -
  static constexpr double kImpedanceMin = 0.9, kImpedanceMax = 0.95, kWidth = 0.001;  // -, -, m or rad
};

}  // namespace calm
