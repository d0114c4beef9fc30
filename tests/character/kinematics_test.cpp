// Forward kinematics against MuJoCo's, on our characters and on one with every odd thing in it.
#include <gtest/gtest.h>

#include "base/rng.h"
#include "character/mujoco_model.h"
#include "character/state.h"
#include "mujoco_state.h"
#include "named.h"

namespace calm {
namespace {

// Anchors off the origin, bodies turned, several hinges on a body, a ball after a hinge, a fixed body.
const char* const kOddities = R"(<mujoco><worldbody>
  <body name="root"><freejoint/><geom type="box" size=".1 .2 .3"/>
    <body name="a" pos=".1 .2 -.3" euler="20 30 40">
      <joint name="a1" pos=".05 0 .1" axis="1 1 0" stiffness="10"/><joint name="a2" pos="0 .1 0" axis="0 0 1"/>
      <geom type="sphere" size=".1"/>
      <body name="fixed" pos="0 0 .3" euler="0 90 0"><geom type="sphere" size=".05"/>
        <body name="b" pos="0 .2 0" euler="0 0 45">
          <joint name="b1" axis="0 1 0" pos=".1 0 0"/><joint name="b2" type="ball" pos="0 0 -.1"/>
          <geom type="capsule" size=".05 .1"/>
        </body>
      </body>
    </body>
    <body name="c" pos="-.2 0 0"><joint name="c_x" axis="1 0 0" pos="0 0 .1" range="-30 30" limited="true"/>
      <joint name="c_y" axis="0 1 0" pos="0 0 .1"/><joint name="c_z" axis="0 0 1" pos="0 0 .1"/>
      <geom type="cylinder" size=".05 .1"/></body>
  </body></worldbody></mujoco>)";

class Kinematics : public testing::TestWithParam<const char*> {};

TEST_P(Kinematics, AgreesWithMujocoAtRandomStates) {
  const Character character = character_named(GetParam(), kOddities);
  const MujocoModel model = compile_mjcf(to_mjcf(character), "test");
  const MujocoData data(mj_makeData(model.get()));
  Rng rng(7);
  for (int trial = 0; trial < 50; ++trial) {
    CharacterState state(character);
    RootState root;
    for (int k = 0; k < 3; ++k) {
      root.pos[k] = rng.uniform(-1.0f, 1.0f);
      root.vel[k] = rng.uniform(-3.0f, 3.0f);
      root.ang_vel[k] = rng.uniform(-5.0f, 5.0f);
    }
    root.rot = Quat(rng.normal(), rng.normal(), rng.normal(), rng.normal()).normalized();
    for (int d = 0; d < character.num_dofs; ++d) {
      state.dof_pos[d] = rng.uniform(character.limit_lower[d], character.limit_upper[d]);
      state.dof_vel[d] = rng.uniform(-5.0f, 5.0f);
    }
    forward_kinematics(character, root, state);
    set_mujoco_state(character, state, data.get());
    mj_forward(model.get(), data.get());

    for (int b = 0; b < character.num_bodies(); ++b) {
      const auto name = character.bodies[b].name;
      const mjtNum* pos = data->xpos + 3 * (b + 1);
      const mjtNum* rot = data->xquat + 4 * (b + 1);
      mjtNum velocity[6];  // angular, linear
      mj_objectVelocity(model.get(), data.get(), mjOBJ_XBODY, b + 1, velocity, 0);
      const Quat expected(static_cast<float>(rot[0]), static_cast<float>(rot[1]), static_cast<float>(rot[2]),
                          static_cast<float>(rot[3]));
      EXPECT_LT(expected.angularDistance(state.view().rot(b)), 2e-3f) << name;
      EXPECT_NEAR(std::abs(expected.dot(state.view().rot(b))), 1.0f, 1e-6f) << name;
      for (int k = 0; k < 3; ++k) {
        EXPECT_NEAR(state.view().pos(b)[k], pos[k], 1e-5) << name;
        // speeds reach some 30 m/s and 30 rad/s: relative single precision
        EXPECT_NEAR(state.view().vel(b)[k], velocity[3 + k], 2e-5) << name;
        EXPECT_NEAR(state.view().ang_vel(b)[k], velocity[k], 2e-5) << name;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, Kinematics, testing::Values("knight", "human", "oddities"),
                         [](const auto& param) { return std::string(param.param); });

TEST(DefaultState, StandsAtRest) {
  const Character human = character_named("human", kOddities);
  const CharacterState state = default_state(human);
  EXPECT_FLOAT_EQ(state.body_pos[2], human.stand_height);
  for (const float v : state.body_vel) EXPECT_EQ(v, 0.0f);
  for (const float v : state.body_ang_vel) EXPECT_EQ(v, 0.0f);
}

}  // namespace
}  // namespace calm
