#include "sim/mujoco_oracle.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace calm {

namespace {

constexpr int kFreeDofs = 6;

Eigen::Vector3d vec3(const mjtNum* v) { return {v[0], v[1], v[2]}; }

}  // namespace

MujocoOracle::MujocoOracle(const Character& character, const std::vector<Prop>& props, const PhysicsSettings& settings)
    : character_(character), settings_(settings), model_(compile_driven(character, props, settings)) {
  // to the end: its answer is the measure
  model_->opt.iterations = 300;
  model_->opt.tolerance = 0.0;
  data_.reset(mj_makeData(model_.get()));
  if (!data_) fail("{}: no memory for MuJoCo's data", character.name);

  // MuJoCo has the geoms body by body, each body's in the order of the file
  shape_of_.assign(model_->ngeom, -1);
  geom_of_.assign(character.shapes.size() + props.size(), -1);
  for (size_t s = 0; s < geom_of_.size(); ++s) {
    const size_t bodies = character.bodies.size();
    const int body =
        s < character.shapes.size() ? character.shapes[s].body : static_cast<int>(bodies + s - character.shapes.size());
    const int first = model_->body_geomadr[1 + body];
    for (int g = first; g < first + model_->body_geomnum[1 + body]; ++g)
      if (shape_of_[g] < 0) {
        shape_of_[g] = static_cast<int>(s), geom_of_[s] = g;
        break;
      }
    if (geom_of_[s] < 0) fail("{}: MuJoCo's model lacks shape {}", character.name, s);
  }
  if (model_->geom_bodyid[0] != 0 || model_->geom_type[0] != mjGEOM_PLANE)
    fail("{}: MuJoCo's model lacks the floor", character.name);
}

void MujocoOracle::set(std::span<const double> saved) {
  mju_copy(data_->qpos, saved.data(), nq());
  mju_copy(data_->qvel, saved.data() + nq(), nv());
  mju_zero(data_->qacc_warmstart, nv());
}

std::vector<double> MujocoOracle::dof_pos() const {
  std::vector<double> out(character_.num_dofs);
  for (int j = 0; j < character_.num_joints(); ++j) {
    const Joint& joint = character_.joints[j];
    const mjtNum* q = data_->qpos + model_->jnt_qposadr[1 + j];
    if (joint.kind == JointKind::kHinge) {
      out[joint.dof] = q[0];
      continue;
    }
    mjtNum map[3];
    mju_quat2Vel(map, q, 1.0);  // the shorter way round
    std::copy_n(map, 3, &out[joint.dof]);
  }
  return out;
}

// The specification's implicit drives ("Implicit PD drives"), with the spring beyond per-axis limits of ball joints.
void MujocoOracle::apply_drives(std::span<const float> targets) {
  const double h = model_->opt.timestep;
  const std::vector<double> q = dof_pos();
  mju_zero(data_->qfrc_applied, nv());
  for (int i = 0; i < character_.num_dofs; ++i) {
    double stiffness = character_.kp[i], damping = character_.kd[i], pull = stiffness * (targets[i] - q[i]);
    if (character_.joints[character_.dof_joint[i]].kind == JointKind::kBall) {
      const double lower = character_.limit_lower[i], upper = character_.limit_upper[i];
      const double excess = q[i] > upper ? q[i] - upper : std::min(q[i] - lower, 0.0);
      if (excess != 0.0) {
        const LimitSpring spring = limit_spring(character_, settings_, i);
        stiffness += spring.stiffness, damping += spring.damping, pull -= spring.stiffness * excess;
      }
    }
    model_->dof_armature[kFreeDofs + i] = character_.armature[i] + h * damping + h * h * stiffness;
    data_->qfrc_applied[kFreeDofs + i] = pull - (damping + h * stiffness) * data_->qvel[kFreeDofs + i];
  }
}

// Puts the contacts where mj_collision would have put MuJoCo's own.
void MujocoOracle::impose(const std::vector<OracleContact>& contacts) {
  data_->ncon = 0;
  for (const OracleContact& c : contacts) {
    mjContact contact = {};
    contact.dist = c.distance, contact.dim = 3, contact.geom1 = c.first, contact.geom2 = c.second;
#if mjVERSION_HEADER >= 300
    contact.geom[0] = c.first, contact.geom[1] = c.second, contact.elem[0] = contact.elem[1] = -1;
    contact.flex[0] = contact.flex[1] = contact.vert[0] = contact.vert[1] = -1;
#endif
    const Eigen::Vector3d second = c.normal.cross(c.tangent);
    mju_copy(contact.pos, c.point.data(), 3);
    mju_copy(contact.frame, c.normal.data(), 3);
    mju_copy(contact.frame + 3, c.tangent.data(), 3), mju_copy(contact.frame + 6, second.data(), 3);
    for (int k = 0; k < 5; ++k) {
      const int of = k < 2 ? 0 : k == 2 ? 1 : 2;
      contact.friction[k] = std::max(model_->geom_friction[3 * c.first + of], model_->geom_friction[3 * c.second + of]);
    }
    mju_copy(contact.solref, model_->geom_solref + mjNREF * c.first, mjNREF);
    mju_copy(contact.solimp, model_->geom_solimp + mjNIMP * c.first, mjNIMP);
    mj_addContact(model_.get(), data_.get(), &contact);
  }
}

void MujocoOracle::forward(std::span<const float> targets, const std::vector<OracleContact>* contacts) {
  apply_drives(targets);
  if (contacts == nullptr) {
    mj_forward(model_.get(), data_.get());
    return;
  }
  // mj_forward's stages, with other contacts
  const mjModel* m = model_.get();
  mjData* d = data_.get();
  mj_fwdPosition(m, d);
  impose(*contacts);
  mj_makeConstraint(m, d);
  mj_projectConstraint(m, d);
  mj_fwdVelocity(m, d);
  mj_fwdActuation(m, d);
  mj_fwdAcceleration(m, d);
  mj_fwdConstraint(m, d);
}

void MujocoOracle::integrate() {
  mj_Euler(model_.get(), data_.get());
  const auto limit = [this](mjtNum* v, int n) {
    const double speed = mju_norm(v, n);
    if (speed > settings_.max_ang_vel) mju_scl(v, v, settings_.max_ang_vel / speed, n);
  };
  for (int j = 0; j < model_->njnt; ++j) {
    mjtNum* v = data_->qvel + model_->jnt_dofadr[j];
    switch (model_->jnt_type[j]) {
      case mjJNT_FREE:
        limit(v + 3, 3);
        break;
      case mjJNT_BALL:
        limit(v, 3);
        break;
      default:
        limit(v, 1);
        break;
    }
  }
}

Eigen::MatrixXd MujocoOracle::mass_matrix() const {
  Eigen::MatrixXd full(nv(), nv());
  mj_fullM(model_.get(), full.data(), data_->qM);
  return full;
}

std::vector<OracleContact> MujocoOracle::contacts() const {
  std::vector<OracleContact> out;
  for (int i = 0; i < data_->ncon; ++i) {
    const mjContact& c = data_->contact[i];
    if (c.exclude != 0) continue;
    OracleContact contact{.first = c.geom1,
                          .second = c.geom2,
                          .point = vec3(c.pos),
                          .normal = vec3(c.frame),
                          .tangent = vec3(c.frame + 3),
                          .distance = c.dist};
    if (contact.first > contact.second) std::swap(contact.first, contact.second), contact.normal *= -1.0;
    out.push_back(contact);
  }
  return out;
}

std::vector<double> MujocoOracle::contact_forces() const {
  std::vector<double> out(3 * static_cast<size_t>(model_->nbody - 1), 0.0);
  for (int i = 0; i < data_->ncon; ++i) {
    const mjContact& c = data_->contact[i];
    if (c.efc_address < 0) continue;
    mjtNum local[6], world[3];
    mj_contactForce(model_.get(), data_.get(), i, local);
    mju_mulMatTVec(world, c.frame, local, 3, 3);
    const int bodies[2] = {model_->geom_bodyid[c.geom1], model_->geom_bodyid[c.geom2]};
    for (int side = 0; side < 2; ++side)
      for (int k = 0; k < 3 && bodies[side] > 0; ++k)
        out[3 * (bodies[side] - 1) + k] += side == 0 ? -world[k] : world[k];
  }
  return out;
}

MujocoOracle::Plain MujocoOracle::plain() {
  mjModel* m = model_.get();
  mjData* d = data_.get();
  for (int i = 0; i < character_.num_dofs; ++i) m->dof_armature[kFreeDofs + i] = character_.armature[i];
  mju_zero(d->qfrc_applied, nv());
  mj_fwdPosition(m, d);
  mj_fwdVelocity(m, d);
  mj_subtreeVel(m, d);
  Plain out;
  out.mass = mass_matrix();
  out.bias = Eigen::Map<Eigen::VectorXd>(d->qfrc_bias, nv());
  std::vector<mjtNum> moved(nv());
  mj_mulM(m, d, moved.data(), d->qvel);
  out.kinetic = 0.5 * mju_dot(moved.data(), d->qvel, nv());
  out.total_mass = m->body_subtreemass[0];
  out.momentum = out.total_mass * vec3(d->subtree_linvel);
  out.spin = vec3(d->subtree_angmom);
  return out;
}

}  // namespace calm
