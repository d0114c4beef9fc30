// MuJoCo as oracle of the batched simulator's stages: characters, random states, relative errors.
#pragma once

#include <experimental/simd>

#include "base/rng.h"
#include "character/mujoco_state.h"
#include "character/named.h"

namespace calm {

using Lanes = std::experimental::native_simd<float>;

// Anchors off the origin, turned bodies, several hinges on a body, a ball after a hinge, fixed bodies, a bare chain.
inline const char* const kOddities = R"(<mujoco><worldbody>
  <body name="root"><freejoint/><geom type="box" size=".1 .2 .3"/>
    <body name="a" pos=".1 .2 -.3" euler="20 30 40">
      <joint name="a1" pos=".05 0 .1" axis="1 1 0" armature=".1"/><joint name="a2" pos="0 .1 0" axis="0 0 1"/>
      <geom type="sphere" size=".1"/>
      <body name="fixed" pos="0 0 .3" euler="0 90 0"><geom type="sphere" size=".05" pos=".1 0 0"/>
        <body name="b" pos="0 .2 0" euler="0 0 45">
          <joint name="b1" axis="0 1 0" pos=".1 0 0"/><joint name="b2" type="ball" pos="0 0 -.1"/>
          <geom type="capsule" size=".05 .1"/>
        </body>
      </body>
    </body>
    <body name="c" pos="-.2 0 0"><joint name="c1" type="ball"/><geom type="cylinder" size=".05 .1"/>
      <body name="d" pos="-.2 0 0"><joint name="d1" axis="0 0 1"/><geom type="box" size=".05 .1 .02" euler="10 0 30"/>
        <body name="e" pos="-.2 0 0"><joint name="e1" axis="1 0 0"/><geom type="sphere" size=".03"/></body></body></body>
  </body></worldbody></mujoco>)";

// A character in random motion, in MuJoCo.
struct Oracle {
  explicit Oracle(const Character& c)
      : character(c), model(compile_mjcf(to_mjcf(c), "oracle")), data(mj_makeData(model.get())) {}

  // height: of the root above the floor, at least; it varies by 4 m.
  void draw(Rng& rng, float height = 8.0f) {
    CharacterState state(character);
    RootState root;
    for (int k = 0; k < 3; ++k) {
      root.pos[k] = rng.uniform(-2.0f, 2.0f);
      root.vel[k] = rng.uniform(-3.0f, 3.0f), root.ang_vel[k] = rng.uniform(-5.0f, 5.0f);
    }
    root.pos.z() += height + 2.0f;
    root.rot = Quat(rng.normal(), rng.normal(), rng.normal(), rng.normal()).normalized();
    for (int d = 0; d < character.num_dofs; ++d) {
      state.dof_pos[d] = rng.uniform(-1.0f, 1.0f);
      state.dof_vel[d] = rng.uniform(-5.0f, 5.0f);
    }
    forward_kinematics(character, root, state);
    set_mujoco_state(character, state, data.get());
    mj_normalizeQuat(model.get(), data->qpos);
    mj_forward(model.get(), data.get());
    full.resize(static_cast<size_t>(model->nv) * model->nv);
    mj_fullM(model.get(), full.data(), data->qM);
  }

  Character character;
  MujocoModel model;
  MujocoData data;
  std::vector<mjtNum> full;  // (nv x nv) mass matrix
};

// Near the floor, solved to the end, bodies that do not touch each other.
struct FloorOracle : Oracle {
  explicit FloorOracle(const Character& c) : Oracle(c) {
    mjModel& m = *model;
    m.opt.timestep = 1.0 / 120.0;
    m.opt.solver = mjSOL_NEWTON, m.opt.cone = mjCONE_PYRAMIDAL, m.opt.jacobian = mjJAC_DENSE;
    m.opt.iterations = 200, m.opt.tolerance = 0.0;
    for (int g = 0; g < m.ngeom; ++g) {
      const bool floor = m.geom_bodyid[g] == 0;
      if (!m.geom_contype[g] && !m.geom_conaffinity[g]) continue;
      m.geom_contype[g] = floor ? 1 : 2, m.geom_conaffinity[g] = floor ? 0 : 1, m.geom_condim[g] = 3;
    }
  }
};

// Largest difference over largest size.
struct RelativeError {
  double difference = 0.0, size = 0.0;
  void add(double got, double expected) {
    difference = std::max(difference, std::abs(got - expected));
    size = std::max(size, std::abs(expected));
  }
  double value() const { return difference / size; }
};

}  // namespace calm
