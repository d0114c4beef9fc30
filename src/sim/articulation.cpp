#include "sim/articulation.h"

namespace calm {

namespace {

constexpr int kRootVelocities = 6, kRootPositions = 7;

// Adds a rigid part to a link: masses and moments about the common centre (parallel axes).
void add_mass(Articulation::Link& link, double mass, const Eigen::Vector3d& com, const Eigen::Matrix3d& inertia) {
  if (mass <= 0.0) return;
  const auto about = [](double m, const Eigen::Vector3d& r) -> Eigen::Matrix3d {
    return m * (r.squaredNorm() * Eigen::Matrix3d::Identity() - r * r.transpose());
  };
  const double total = link.mass + mass;
  const Eigen::Vector3d centre = (link.mass * link.com + mass * com) / total;
  link.inertia += about(link.mass, link.com - centre) + inertia + about(mass, com - centre);
  link.mass = total, link.com = centre;
}

}  // namespace

Articulation make_articulation(const Character& character) {
  Articulation a;
  a.num_positions = kRootPositions, a.num_velocities = kRootVelocities + character.num_dofs;
  a.armature.assign(a.num_velocities, 0.0);
  a.parent_velocity = {-1, 0, 1, 2, 3, 4};

  for (const Body& body : character.bodies) {
    const bool root = body.parent < 0, fixed = !root && body.num_joints == 0;
    const Eigen::Matrix3d rot = body.rot.cast<double>().normalized().toRotationMatrix();
    const Eigen::Vector3d pos = body.pos.cast<double>();

    // where the body lies in its link, and where the link lies in its parent
    if (fixed) {
      a.body_link.push_back(a.body_link[body.parent]);
      a.body_pos.push_back(a.body_pos[body.parent] + a.body_rot[body.parent] * pos);
      a.body_rot.push_back(a.body_rot[body.parent] * rot);
    } else {
      Articulation::Link link;
      if (!root) {
        link.parent = a.body_link[body.parent];
        link.pos = a.body_pos[body.parent] + a.body_rot[body.parent] * pos;
        link.rot = a.body_rot[body.parent] * rot;
      }
      link.first_joint = static_cast<int>(a.joints.size()), link.num_joints = body.num_joints;
      int velocity = root ? kRootVelocities - 1 : a.link_velocity[link.parent];
      for (int j = body.first_joint; j < body.first_joint + body.num_joints; ++j) {
        const Joint& joint = character.joints[j];
        a.joints.push_back({joint.kind, joint.anchor.cast<double>(), joint.axis.cast<double>().normalized(),
                            kRootVelocities + joint.dof, a.num_positions});
        a.num_positions += joint.kind == JointKind::kBall ? 4 : 1;
        for (int k = 0; k < joint.num_dofs; ++k) {
          a.parent_velocity.push_back(velocity);
          velocity = kRootVelocities + joint.dof + k;
          a.armature[velocity] = character.armature[joint.dof + k];
        }
      }
      a.link_velocity.push_back(velocity);
      a.body_link.push_back(static_cast<int>(a.links.size()));
      a.body_pos.emplace_back(Eigen::Vector3d::Zero());
      a.body_rot.emplace_back(Eigen::Matrix3d::Identity());
      a.links.push_back(link);
    }

    const Eigen::Matrix3d axes = a.body_rot.back() * body.inertia_rot.cast<double>().normalized().toRotationMatrix();
    add_mass(a.links[a.body_link.back()], body.mass, a.body_pos.back() + a.body_rot.back() * body.com.cast<double>(),
             axes * body.inertia.cast<double>().asDiagonal() * axes.transpose());
  }

  int entries = 0;
  for (int i = 0; i < a.num_velocities; ++i) {
    a.row_start.push_back(entries);
    for (int j = i; j >= 0; j = a.parent_velocity[j]) ++entries;
  }
  a.row_start.push_back(entries);
  return a;
}

}  // namespace calm
