// Every backend against MuJoCo and the laws of mechanics (sim/verify.h), on characters of ours and on files that were
// not made for it.
#include "sim/verify.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace calm {

namespace {

// Hinges one after the other, one about an odd axis, one without a range.
const char* const kChain = R"(<mujoco><worldbody>
  <body name="root"><freejoint/><geom type="capsule" size=".05 .15"/>
    <body name="a" pos="0 0 .35"><joint name="a" axis="1 0 0" range="-90 90" stiffness="40" damping="2"/>
      <geom type="capsule" size=".05 .12"/>
      <body name="b" pos="0 0 .35"><joint name="b" axis="0 1 0" range="-90 90" stiffness="30" damping="1.5"/>
        <geom type="capsule" size=".04 .12"/>
        <body name="c" pos="0 0 .35"><joint name="c" axis="1 1 0" range="-120 20" stiffness="20" damping="1"/>
          <geom type="capsule" size=".04 .12"/>
          <body name="d" pos="0 0 .35"><joint name="d" axis="0 0 1" stiffness="10" damping=".5"/>
            <geom type="sphere" size=".08"/></body></body></body></body></body>
  </worldbody></mujoco>)";

// Balls with cones and anchors off the origin, a hinge among them.
const char* const kTree = R"(<mujoco><worldbody>
  <body name="root"><freejoint/><geom type="sphere" size=".15"/>
    <body name="a" pos=".2 0 0" euler="10 20 30">
      <joint name="a" type="ball" range="0 80" stiffness="50" damping="3" armature=".02"/>
      <geom type="capsule" size=".05 .1" pos=".1 0 0" euler="0 90 0"/>
      <body name="a2" pos=".25 0 0"><joint name="a2" type="ball" stiffness="20" damping="1" pos="0 .02 0"/>
        <geom type="capsule" fromto="0 0 0 .2 0 .05" size=".04"/></body></body>
    <body name="b" pos="-.2 .1 0"><joint name="b" type="ball" range="0 60" stiffness="50" damping="3"/>
      <geom type="capsule" size=".05" fromto="0 0 0 -.2 0 -.1"/>
      <body name="b2" pos="-.25 0 -.1"><joint name="b2" axis="0 1 0" range="-100 0" stiffness="20" damping="1"/>
        <geom type="sphere" size=".07"/></body></body>
    <body name="c" pos="0 0 -.2"><joint name="c" type="ball" stiffness="80" damping="5"/>
      <geom type="capsule" size=".06" fromto="0 0 0 0 0 -.3"/></body></body>
  </worldbody></mujoco>)";

// Four legs; each hip two hinges at two anchors, which make no ball joint; a fixed head.
std::string four_legs() {
  std::string legs;
  for (int i = 0; i < 4; ++i)
    legs += fmt::format(R"(<body name="hip{0}" pos="{1} {2} 0">
      <joint name="x{0}" axis="1 0 0" range="-40 40" stiffness="200" damping="10" armature=".01"/>
      <joint name="y{0}" axis="0 1 0" range="-60 60" pos="0 0 .02" stiffness="200" damping="10"/>
      <geom type="capsule" size=".04" fromto="0 0 0 0 0 -.2"/>
      <body name="knee{0}" pos="0 0 -.22">
        <joint name="k{0}" axis="0 1 0" range="-100 100" stiffness="150" damping="8"/>
        <geom type="capsule" size=".03" fromto="0 0 0 0 0 -.2"/><geom type="sphere" size=".04" pos="0 0 -.22"/>
      </body></body>)",
                        i, i < 2 ? .25 : -.25, i % 2 == 0 ? .15 : -.15);
  return R"(<mujoco><worldbody><body name="trunk"><freejoint/><geom type="box" size=".3 .12 .08"/>)" + legs +
         R"(<body name="head" pos=".4 0 .1"><geom type="sphere" size=".09"/></body></body></worldbody></mujoco>)";
}

// One leg: hinges, a ball, a cylinder for a foot.
const char* const kHopper = R"(<mujoco><worldbody>
  <body name="torso"><freejoint/><geom type="capsule" size=".08 .2"/>
    <body name="thigh" pos="0 0 -.2"><joint name="hip x" axis="1 0 0" range="-30 30" stiffness="100" damping="6"/>
      <joint name="hip y" axis="0 1 0" range="-90 30" stiffness="100" damping="6"/>
      <geom type="capsule" size=".05" fromto="0 0 0 0 0 -.35"/>
      <body name="shin" pos="0 0 -.4"><joint name="knee" axis="0 1 0" range="0 140" stiffness="100" damping="6"/>
        <geom type="capsule" size=".04" fromto="0 0 0 0 0 -.35"/>
        <body name="foot" pos="0 0 -.38"><joint name="ankle" type="ball" range="0 45" stiffness="60" damping="4"/>
          <geom type="cylinder" size=".12 .02"/></body></body></body></body>
  </worldbody></mujoco>)";

// No drives at all; anchors off the origin, turned and fixed bodies, a ball after a hinge.
const char* const kOdd = R"(<mujoco><worldbody>
  <body name="root"><freejoint/><geom type="box" size=".1 .2 .3"/>
    <body name="a" pos=".1 .2 -.3" euler="20 30 40">
      <joint name="a1" pos=".05 0 .1" axis="1 1 0" armature=".1"/><joint name="a2" pos="0 .1 0" axis="0 0 1"/>
      <geom type="sphere" size=".1"/>
      <body name="fixed" pos="0 0 .3" euler="0 90 0"><geom type="sphere" size=".05" pos=".1 0 0"/>
        <body name="b" pos="0 .2 0" euler="0 0 45">
          <joint name="b1" axis="0 1 0" pos=".1 0 0"/><joint name="b2" type="ball" pos="0 0 -.1"/>
          <geom type="capsule" size=".05 .1"/></body></body></body>
    <body name="c" pos="-.2 0 0"><joint name="c1" type="ball"/><geom type="cylinder" size=".05 .1"/></body></body>
  </worldbody></mujoco>)";

Character character_of(const std::string& name) {
  if (name == "human" || name == "knight")
    return load_character(std::string(CALM_SOURCE_DIR "/assets/characters/") + name + ".xml");
  const std::string mjcf = name == "chain"       ? kChain
                           : name == "tree"      ? kTree
                           : name == "four_legs" ? four_legs()
                           : name == "hopper"    ? kHopper
                                                 : kOdd;
  return parse_character(mjcf, "", name);
}

using Case = std::tuple<std::string, std::string>;  // character, backend

class VerifySimulator : public ::testing::TestWithParam<Case> {};

TEST_P(VerifySimulator, AllChecks) {
  const auto& [name, backend] = GetParam();
  ThreadPool pool(1);
  const std::vector<Check> checks = verify_simulator(character_of(name), backend, 1, pool);
  EXPECT_GE(checks.size(), backend == "mujoco" ? 15u : 22u);
  for (const Check& check : checks)
    EXPECT_TRUE(check.ok) << check.name << ": " << check.error << " over " << check.tolerance << "; " << check.note;
}

std::string case_name(const ::testing::TestParamInfo<Case>& info) {
  return std::get<0>(info.param) + "_" + std::get<1>(info.param);
}

INSTANTIATE_TEST_SUITE_P(Backends, VerifySimulator,
                         ::testing::Combine(::testing::Values("human", "knight", "chain", "tree", "four_legs", "hopper",
                                                              "odd"),
                                            ::testing::Values("scalar", "simd")),
                         case_name);
INSTANTIATE_TEST_SUITE_P(Oracle, VerifySimulator,
                         ::testing::Combine(::testing::Values("knight"), ::testing::Values("mujoco")), case_name);

// With this seed the hopper's foot, a cylinder, comes to stand nearly upright.
TEST(VerifySimulatorSeeds, UprightCylinderKeepsItsContacts) {
  ThreadPool pool(1);
  for (const Check& check : verify_simulator(character_of("hopper"), "simd", 3, pool))
    EXPECT_TRUE(check.ok) << check.name << ": " << check.error << " over " << check.tolerance << "; " << check.note;
}

TEST(VerifySimulatorErrors, UnknownBackend) {
  ThreadPool pool(1);
  EXPECT_THROW(verify_simulator(character_of("chain"), "physx", 1, pool), Error);
}

}  // namespace

}  // namespace calm
