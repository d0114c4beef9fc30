#include "sim/compile.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "base/error.h"

namespace calm {

namespace {

constexpr int kFreeDofs = 6, kFreePositions = 7;
constexpr double kMinFriction = 0.01;  // less makes the friction pyramid so thin that the solver gains momentum

// A body or prop as the tables need it: where it hangs and its mass.
struct Part {
  int parent = -1;
  Eigen::Vector3d pos = Eigen::Vector3d::Zero(), com = Eigen::Vector3d::Zero();
  Eigen::Quaterniond rot = Eigen::Quaterniond::Identity();
  double mass = 0.0;
  Eigen::Matrix3d inertia = Eigen::Matrix3d::Zero();  // about com, the part's axes
  int first_joint = 0, num_joints = 0;
};

struct Rigid {
  double mass = 0.0;
  Eigen::Vector3d com = Eigen::Vector3d::Zero();
  Eigen::Matrix3d inertia = Eigen::Matrix3d::Zero();  // about com

  // Masses and moments about the common centre (parallel axes).
  void add(double other_mass, const Eigen::Vector3d& other_com, const Eigen::Matrix3d& other_inertia) {
    if (other_mass <= 0.0) return;
    const auto about = [](double m, const Eigen::Vector3d& r) -> Eigen::Matrix3d {
      return m * (r.squaredNorm() * Eigen::Matrix3d::Identity() - r * r.transpose());
    };
    const double total = mass + other_mass;
    const Eigen::Vector3d centre = (mass * com + other_mass * other_com) / total;
    inertia += about(mass, com - centre) + other_inertia + about(other_mass, other_com - centre);
    mass = total, com = centre;
  }
};

template <class S>
Vec3Of<S> vec(const Eigen::Vector3d& v) {
  return {static_cast<S>(v.x()), static_cast<S>(v.y()), static_cast<S>(v.z())};
}
template <class S>
Mat3Of<S> mat(const Eigen::Matrix3d& m) {
  return {vec<S>(m.col(0)), vec<S>(m.col(1)), vec<S>(m.col(2))};
}
template <class S>
QuatOf<S> quat(const Eigen::Quaterniond& q) {
  return {static_cast<S>(q.w()), static_cast<S>(q.x()), static_cast<S>(q.y()), static_cast<S>(q.z())};
}
bool is_identity(const Eigen::Quaterniond& q) { return q.vec().norm() < 1e-9; }

ConvexKind convex_kind(ShapeKind kind) {
  switch (kind) {
    case ShapeKind::kSphere:
      return ConvexKind::kSphere;
    case ShapeKind::kCapsule:
      return ConvexKind::kCapsule;
    case ShapeKind::kCylinder:
      return ConvexKind::kCylinder;
    case ShapeKind::kBox:
      break;
  }
  return ConvexKind::kBox;
}

double bounding_radius(ShapeKind kind, const Eigen::Vector3d& size) {
  switch (kind) {
    case ShapeKind::kSphere:
      return size.x();
    case ShapeKind::kCapsule:
      return size.x() + size.y();
    case ShapeKind::kCylinder:
      return std::hypot(size.x(), size.y());
    case ShapeKind::kBox:
      break;
  }
  return size.norm();
}

std::vector<Part> parts_of(const Character& character, const std::vector<Prop>& props) {
  std::vector<Part> parts;
  for (const Body& body : character.bodies) {
    const Eigen::Matrix3d axes = body.inertia_rot.cast<double>().normalized().toRotationMatrix();
    parts.push_back({.parent = body.parent,
                     .pos = body.pos.cast<double>(),
                     .com = body.com.cast<double>(),
                     .rot = body.rot.cast<double>().normalized(),
                     .mass = body.mass,
                     .inertia = axes * body.inertia.cast<double>().asDiagonal() * axes.transpose(),
                     .first_joint = body.first_joint,
                     .num_joints = body.num_joints});
  }
  for (const Prop& prop : props) {
    Part part;
    part.mass = prop.mass;
    part.inertia = prop_inertia(prop).cast<double>().asDiagonal();
    parts.push_back(part);
  }
  return parts;
}

template <class S>
class Builder {
 public:
  Builder(const Character& character, const std::vector<Prop>& props, const PhysicsSettings& settings,
          const mjModel& driven)
      : character_(character), props_(props), settings_(settings), driven_(driven) {}

  Model<S> build() {
    scalars();
    links();
    drives();
    rows();
    shapes();
    pairs();
    m_.scalars.num_links = static_cast<int>(m_.links.size());
    m_.scalars.num_joints = static_cast<int>(m_.joints.size());
    m_.scalars.num_nonzeros = m_.row_start.back();
    m_.scalars.num_shapes = static_cast<int>(m_.shapes.size());
    m_.scalars.num_pairs = static_cast<int>(m_.pairs.size());
    return m_;
  }

 private:
  void scalars() {
    ModelView<S>& v = m_.scalars;
    v.num_dofs = character_.num_dofs, v.num_bodies = character_.num_bodies();
    v.num_props = static_cast<int>(props_.size());
    v.substeps = settings_.substeps, v.solver_iterations = settings_.solver_iterations;
    const double h = timestep_of(settings_);
    v.timestep = static_cast<S>(h), v.gravity = static_cast<S>(-driven_.opt.gravity[2]);
    v.max_ang_vel = settings_.max_ang_vel;
    using C = ConstraintStiffness;
    const double time = std::max(C::kTimeConstant, 2.0 * h), most = C::kImpedanceMax, ratio = C::kDampingRatio;
    v.reference_stiffness = static_cast<S>(1.0 / (most * most * time * time * ratio * ratio));
    v.reference_damping = static_cast<S>(2.0 / (most * time));
  }

  // Links and joints, and where each body went.
  void links() {
    int velocities = 0, positions = 0;
    std::vector<Eigen::Vector3d> body_pos;
    std::vector<Eigen::Quaterniond> body_rot;
    std::vector<Rigid> rigid;
    for (const Part& part : parts_of(character_, props_)) {
      const bool floating = part.parent < 0, fixed = !floating && part.num_joints == 0;
      if (fixed) {
        const int up = part.parent;
        m_.bodies.push_back(m_.bodies[up]);
        body_pos.push_back(body_pos[up] + body_rot[up] * part.pos);
        body_rot.push_back((body_rot[up] * part.rot).normalized());
      } else {
        LinkRow<S> link;
        if (!floating) {
          const int up = part.parent;
          const Eigen::Quaterniond rot = (body_rot[up] * part.rot).normalized();
          link.parent = m_.bodies[up].link;
          link.pos = vec<S>(body_pos[up] + body_rot[up] * part.pos);
          link.turned = !is_identity(rot), link.rot = mat<S>(rot.toRotationMatrix()), link.quat = quat<S>(rot);
        }
        link.first_joint = static_cast<int>(m_.joints.size()), link.num_joints = part.num_joints;
        link.first_velocity = velocities, link.first_position = positions;
        if (floating) velocities += kFreeDofs, positions += kFreePositions;
        for (int j = part.first_joint; j < part.first_joint + part.num_joints; ++j) {
          add_joint(character_.joints[j], velocities, positions);
        }
        link.num_velocities = velocities - link.first_velocity;
        link.last_velocity = velocities - 1;
        BodyRow<S> body;
        body.link = static_cast<int>(m_.links.size());
        m_.bodies.push_back(body);
        body_pos.emplace_back(Eigen::Vector3d::Zero());
        body_rot.emplace_back(Eigen::Quaterniond::Identity());
        rigid.emplace_back();
        m_.links.push_back(link);
      }
      BodyRow<S>& body = m_.bodies.back();
      body.fixed = fixed, body.pos = vec<S>(body_pos.back()), body.quat = quat<S>(body_rot.back());
      const Eigen::Matrix3d axes = body_rot.back().toRotationMatrix();
      rigid[body.link].add(part.mass, body_pos.back() + axes * part.com, axes * part.inertia * axes.transpose());
    }
    for (size_t i = 0; i < rigid.size(); ++i) {
      LinkRow<S>& link = m_.links[i];
      const Eigen::Matrix3d& inertia = rigid[i].inertia;
      link.mass = static_cast<S>(rigid[i].mass), link.com = vec<S>(rigid[i].com);
      link.xx = static_cast<S>(inertia(0, 0)), link.yy = static_cast<S>(inertia(1, 1));
      link.zz = static_cast<S>(inertia(2, 2)), link.xy = static_cast<S>(inertia(0, 1));
      link.xz = static_cast<S>(inertia(0, 2)), link.yz = static_cast<S>(inertia(1, 2));
      const double off = std::abs(inertia(0, 1)) + std::abs(inertia(0, 2)) + std::abs(inertia(1, 2));
      link.skewed = off > 1e-9 * inertia.trace();
    }
    m_.scalars.num_velocities = velocities, m_.scalars.num_positions = positions;
    body_pos_ = body_pos, body_rot_ = body_rot;
  }

  void add_joint(const Joint& joint, int& velocities, int& positions) {
    JointRow<S> row;
    row.ball = joint.kind == JointKind::kBall;
    row.anchored = joint.anchor.norm() > 0.0f;
    row.anchor = vec<S>(joint.anchor.cast<double>());
    row.axis = vec<S>(joint.axis.cast<double>().normalized());
    row.velocity = velocities, row.position = positions, row.dof = joint.dof;
    const float lower = character_.limit_lower[joint.dof], upper = character_.limit_upper[joint.dof];
    // as to_mjcf has it
    row.limited = row.ball ? joint.cone_limit > 0.0f : lower > -kPi || upper < kPi;
    row.lower = static_cast<S>(lower), row.upper = static_cast<S>(row.ball ? joint.cone_limit : upper);
    row.inverse_weight = static_cast<S>(driven_.dof_invweight0[velocities]);
    m_.joints.push_back(row);
    velocities += joint.num_dofs, positions += row.ball ? 4 : 1;
  }

  void drives() {
    constexpr S kNone = std::numeric_limits<S>::infinity();
    for (int d = 0; d < character_.num_dofs; ++d) {
      const bool ball = character_.joints[character_.dof_joint[d]].kind == JointKind::kBall;
      const LimitSpring spring = limit_spring(character_, settings_, d);
      m_.drives.push_back({.kp = character_.kp[d],
                           .kd = character_.kd[d],
                           .lower = ball ? static_cast<S>(character_.limit_lower[d]) : -kNone,
                           .upper = ball ? static_cast<S>(character_.limit_upper[d]) : kNone,
                           .limit_stiffness = static_cast<S>(spring.stiffness),
                           .limit_damping = static_cast<S>(spring.damping)});
    }
  }

  // The mass matrix' pattern.
  void rows() {
    m_.armature.assign(m_.scalars.num_velocities, S{0});
    for (const JointRow<S>& joint : m_.joints)
      for (int k = 0; k < (joint.ball ? 3 : 1); ++k)
        m_.armature[joint.velocity + k] = character_.armature[joint.dof + k];
    for (const LinkRow<S>& link : m_.links) {
      int before = link.parent < 0 ? -1 : m_.links[link.parent].last_velocity;
      for (int d = link.first_velocity; d < link.first_velocity + link.num_velocities; ++d) {
        m_.parent_velocity.push_back(before);
        before = d;
      }
    }
    for (int i = 0; i < m_.scalars.num_velocities; ++i)
      m_.force_scale.push_back(static_cast<S>(1.0 / std::sqrt(std::max(driven_.dof_M0[i], 1e-12))));
    int entries = 0;
    for (int i = 0; i < m_.scalars.num_velocities; ++i) {
      m_.row_start.push_back(entries);
      for (int j = i; j >= 0; j = m_.parent_velocity[j]) ++entries;
    }
    m_.row_start.push_back(entries);
  }

  void add_shape(ShapeKind kind, int body, int index, const Eigen::Vector3d& pos, const Eigen::Quaterniond& rot,
                 const Eigen::Vector3d& size, double friction) {
    const Eigen::Quaterniond in_link = (body_rot_[body] * rot).normalized();
    ShapeRow<S> row;
    row.kind = convex_kind(kind), row.link = m_.bodies[body].link, row.body = body, row.shape = index;
    row.pos = vec<S>(body_pos_[body] + body_rot_[body] * pos), row.size = vec<S>(size);
    row.turned = !is_identity(in_link), row.rot = mat<S>(in_link.toRotationMatrix());
    row.radius = static_cast<S>(bounding_radius(kind, size));
    row.floor_friction = static_cast<S>(std::max({friction, double{settings_.floor_friction}, kMinFriction}));
    row.inverse_weight = static_cast<S>(driven_.body_invweight0[2 * (body + 1)]);
    m_.shapes.push_back(row);
    friction_.push_back(friction);
  }

  void shapes() {
    for (size_t i = 0; i < character_.shapes.size(); ++i) {
      const Shape& s = character_.shapes[i];
      if (s.collides)
        add_shape(s.kind, s.body, static_cast<int>(i), s.pos.cast<double>(), s.rot.cast<double>().normalized(),
                  s.size.cast<double>(), s.friction.x());
    }
    for (size_t p = 0; p < props_.size(); ++p)
      add_shape(props_[p].kind, character_.num_bodies() + static_cast<int>(p),
                static_cast<int>(character_.shapes.size() + p), Eigen::Vector3d::Zero(), Eigen::Quaterniond::Identity(),
                props_[p].size.cast<double>(), props_[p].friction);
  }

  // As MuJoCo has it: not a link with itself, nor with its parent, nor bodies that the file excludes.
  bool may_touch(const ShapeRow<S>& a, const ShapeRow<S>& b) const {
    const int bodies = character_.num_bodies();
    if (a.link == b.link) return false;
    if (m_.links[a.link].parent == b.link || m_.links[b.link].parent == a.link) return false;
    if (!settings_.self_collision && a.body < bodies && b.body < bodies) return false;
    return std::ranges::none_of(character_.excluded_pairs, [&](const auto& pair) {
      return (pair.first == a.body && pair.second == b.body) || (pair.first == b.body && pair.second == a.body);
    });
  }

  void pairs() {
    for (size_t i = 0; i < m_.shapes.size(); ++i)
      for (size_t j = i + 1; j < m_.shapes.size(); ++j) {
        if (!may_touch(m_.shapes[i], m_.shapes[j])) continue;
        const bool swapped = m_.shapes[j].kind < m_.shapes[i].kind;
        const ShapeRow<S>&a = m_.shapes[swapped ? j : i], &b = m_.shapes[swapped ? i : j];
        const double reach = static_cast<double>(a.radius) + static_cast<double>(b.radius);
        m_.pairs.push_back({.a = static_cast<int>(swapped ? j : i),
                            .b = static_cast<int>(swapped ? i : j),
                            .friction = static_cast<S>(std::max({friction_[i], friction_[j], kMinFriction})),
                            .inverse_weight = a.inverse_weight + b.inverse_weight,
                            .reach = static_cast<S>(reach * reach)});
      }
  }

  const Character& character_;
  const std::vector<Prop>& props_;
  const PhysicsSettings& settings_;
  const mjModel& driven_;
  Model<S> m_;
  std::vector<Eigen::Vector3d> body_pos_;  // in their links
  std::vector<Eigen::Quaterniond> body_rot_;
  std::vector<double> friction_;  // (shapes)
};

void check(const PhysicsSettings& settings) {
  if (settings.substeps < 1) fail("physics: substeps is {}; it must be at least 1", settings.substeps);
  if (!(settings.control_rate > 0.0f)) fail("physics: control_rate is {}; it must be positive", settings.control_rate);
  if (!(settings.max_ang_vel > 0.0f)) fail("physics: max_ang_vel is {}; it must be positive", settings.max_ang_vel);
  if (!(settings.limit_stiffness >= 0.0f) || !(settings.floor_friction >= 0.0f) || settings.solver_iterations < 1) {
    fail("physics: limit_stiffness and floor_friction must not be negative, solver_iterations at least 1");
  }
}

}  // namespace

LimitSpring limit_spring(const Character& character, const PhysicsSettings& settings, int dof) {
  // damping that takes excess back with a time constant of two substeps: no bounce, no sticking
  const double stiffness = static_cast<double>(settings.limit_stiffness) * character.kp[dof];
  return {stiffness, stiffness * 2.0 * timestep_of(settings)};
}

MujocoModel compile_driven(const Character& character, const std::vector<Prop>& props,
                           const PhysicsSettings& settings) {
  check(settings);
  MujocoModel model = compile_mjcf(to_mjcf(character, props), character.name);
  mjModel& m = *model;

  // the compiled model must have the character's own order of bodies and joints
  const int num_props = static_cast<int>(props.size());
  bool same = m.nv == kFreeDofs + character.num_dofs + kFreeDofs * num_props &&
              m.nbody == 1 + character.num_bodies() + num_props && m.njnt == 1 + character.num_joints() + num_props &&
              m.jnt_type[0] == mjJNT_FREE;
  for (int j = 0; same && j < character.num_joints(); ++j) {
    const Joint& joint = character.joints[j];
    same = m.jnt_type[1 + j] == (joint.kind == JointKind::kBall ? mjJNT_BALL : mjJNT_HINGE) &&
           m.jnt_dofadr[1 + j] == kFreeDofs + joint.dof && m.jnt_bodyid[1 + j] == 1 + joint.body;
  }
  if (!same) fail("{}: MuJoCo orders the compiled character's joints differently", character.name);

  // options
  m.opt.timestep = timestep_of(settings);
  m.opt.integrator = mjINT_EULER;
  m.opt.cone = mjCONE_PYRAMIDAL;
  m.opt.jacobian = mjJAC_DENSE;
  m.opt.solver = mjSOL_NEWTON;
  m.opt.iterations = settings.solver_iterations;
  m.opt.tolerance = 1e-6;
  m.opt.disableflags = mjDSBL_EQUALITY | mjDSBL_FRICTIONLOSS | mjDSBL_ACTUATION | mjDSBL_SENSOR;
  m.opt.enableflags = 0;

  // who collides: all with the floor and the props and, unless switched off, the character's bodies with each other
  constexpr int kFloor = 1, kCharacter = 2, kProp = 4;
  for (int g = 0; g < m.ngeom; ++g) {
    m.geom_condim[g] = 3;
    const bool floor = m.geom_bodyid[g] == 0, prop = m.geom_bodyid[g] > character.num_bodies();
    if (floor) m.geom_friction[3 * g] = settings.floor_friction;
    m.geom_friction[3 * g] = std::max(m.geom_friction[3 * g], kMinFriction);
    if (!m.geom_contype[g] && !m.geom_conaffinity[g]) continue;
    m.geom_contype[g] = floor ? kFloor : prop ? kProp : kCharacter;
    m.geom_conaffinity[g] = floor ? 0 : prop ? kFloor | kCharacter | kProp : kFloor | kProp;
    if (!floor && !prop && settings.self_collision) m.geom_conaffinity[g] |= kCharacter;
  }
#if mjVERSION_HEADER >= 300
  for (int b = 0; b < m.nbody; ++b) {
    m.body_contype[b] = m.body_conaffinity[b] = 0;
    for (int g = m.body_geomadr[b]; g >= 0 && g < m.body_geomadr[b] + m.body_geomnum[b]; ++g) {
      m.body_contype[b] |= m.geom_contype[g];
      m.body_conaffinity[b] |= m.geom_conaffinity[g];
    }
  }
#else
  // room for contacts; MuJoCo 3 takes it from an arena that grows to need
  constexpr int kMaxContacts = 160;  // more than all shapes of a character folded up give
  m.nconmax = kMaxContacts;
  m.njmax = 4 * kMaxContacts + 64;
  const int rows = m.njmax + m.nv;
  m.nstack = 6 * rows * rows + 50 * (m.nq + m.nv + m.nbody + m.ngeom);
#endif

  // constraint regularisation is scaled by the inertia that the solver meets: with drives
  const double h = m.opt.timestep;
  for (int v = 0; v < m.nv; ++v) m.dof_armature[v] = 0.0;
  for (int i = 0; i < character.num_dofs; ++i)
    m.dof_armature[kFreeDofs + i] = character.armature[i] + h * character.kd[i] + h * h * character.kp[i];
  const MujocoData data(mj_makeData(&m));
  if (!data) fail("{}: no memory for MuJoCo's data", character.name);
  mj_setConst(&m, data.get());
  return model;
}

template <class S>
Model<S> make_model(const Character& character, const std::vector<Prop>& props, const PhysicsSettings& settings,
                    const mjModel& driven) {
  return Builder<S>(character, props, settings, driven).build();
}

template Model<float> make_model(const Character&, const std::vector<Prop>&, const PhysicsSettings&, const mjModel&);
template Model<double> make_model(const Character&, const std::vector<Prop>&, const PhysicsSettings&, const mjModel&);

}  // namespace calm
