// A character as the equations of motion see it: links, joints and the sparsity of the mass matrix. Const tables, made
// from a Character at load time; bodies fixed to their parent are folded into the parent's link.
//
// Coordinates are MuJoCo's. Positions: root position (3, world, m), root rotation (4, w x y z), then each joint in
// order: a hinge's angle, a ball's rotation (4, w x y z, child in parent). Velocities: root linear (3, world), root
// angular (3, in the root's own frame), then each DoF: a hinge's rate, a ball's angular velocity (3, in the child's own
// frame).
#pragma once

#include <vector>

#include "character/character.h"

namespace calm {

struct Articulation {
  struct Link {
    int parent = -1;                                // index; -1 for the root
    Eigen::Vector3d pos = Eigen::Vector3d::Zero();  // in the parent link's frame, at zero joint positions
    Eigen::Matrix3d rot = Eigen::Matrix3d::Identity();
    int first_joint = 0, num_joints = 0;
    double mass = 0.0;
    Eigen::Vector3d com = Eigen::Vector3d::Zero();      // in the link's frame
    Eigen::Matrix3d inertia = Eigen::Matrix3d::Zero();  // about the centre of mass, link's axes
  };
  struct LinkJoint {
    JointKind kind = JointKind::kHinge;
    Eigen::Vector3d anchor = Eigen::Vector3d::Zero();  // in the link's frame
    Eigen::Vector3d axis = Eigen::Vector3d::UnitY();   // hinge: in the link's frame
    int velocity = 0;                                  // first of its velocities
    int position = 0;                                  // first of its positions
  };

  int num_positions = 0, num_velocities = 0;
  std::vector<Link> links;  // root first, a parent before its children
  std::vector<LinkJoint> joints;
  std::vector<double> armature;  // (velocities) 0 for the root's

  std::vector<int> link_velocity;  // (links) the velocity that its children's go on from: its last, or its parent's

  // Where each body went.
  std::vector<int> body_link;             // (bodies)
  std::vector<Eigen::Vector3d> body_pos;  // (bodies) in the link's frame
  std::vector<Eigen::Matrix3d> body_rot;

  // The mass matrix couples a velocity with those between it and the root only (Featherstone 2008, ch. 6.5). Row i is
  // stored from its diagonal toward the root: entry row_start[i] + k is its k-th ancestor, k = 0 itself.
  std::vector<int> parent_velocity;  // (velocities) next toward the root; -1 at the end
  std::vector<int> row_start;        // (velocities + 1)
  int num_nonzeros() const { return row_start.back(); }
};

Articulation make_articulation(const Character& character);

}  // namespace calm
