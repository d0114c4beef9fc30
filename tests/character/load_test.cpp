// The loader: what it derives, what it refuses and how it says so, and that damaged text never brings it down.
#include <gtest/gtest.h>
#include <mujoco/mujoco.h>

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/rng.h"
#include "character/mujoco_model.h"
#include "character/state.h"

namespace calm {
namespace {

const std::filesystem::path kAssets = std::filesystem::path(CALM_SOURCE_DIR) / "assets/characters";

// A floating box with a leg; `leg` goes into the leg's body, `rest` after the worldbody.
std::string mjcf(const std::string& leg, const std::string& rest = "", const std::string& root = "<freejoint/>") {
  return "<mujoco><worldbody><geom type=\"plane\" size=\"1 1 1\"/><body name=\"trunk\" pos=\"0 0 5\">" + root +
         "<geom name=\"box\" type=\"box\" size=\".1 .1 .1\"/><body name=\"leg\" pos=\"0 0 -.1\">" + leg +
         "<geom type=\"capsule\" fromto=\"0 0 0 0 0 -.5\" size=\".05\"/></body></body></worldbody>" + rest +
         "</mujoco>";
}
const std::string kHinge = "<joint name=\"hip\" axis=\"0 1 0\" limited=\"true\" range=\"-90 30\" stiffness=\"7\"/>";

std::string error_of(const std::string& text, const std::string& yaml = "") {
  try {
    parse_character(text, yaml, "test.xml");
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(LoadCharacter, ReadsHinge) {
  const Character c = parse_character(
      mjcf("<joint axis=\"0 2 0\" limited=\"true\" range=\"-90 30\" stiffness=\"7\" damping=\"3\" armature=\".5\"/>"),
      "", "test.xml");
  EXPECT_EQ(c.name, "test");
  ASSERT_EQ(c.num_joints(), 1);
  EXPECT_EQ(c.joints[0].kind, JointKind::kHinge);
  EXPECT_TRUE(c.joints[0].axis.isApprox(Vec3::UnitY()));
  EXPECT_NEAR(c.limit_lower[0], -kPi / 2, 1e-6f);
  EXPECT_NEAR(c.limit_upper[0], kPi / 6, 1e-6f);
  EXPECT_EQ(c.kp[0], 7.0f);
  EXPECT_EQ(c.kd[0], 3.0f);
  EXPECT_EQ(c.armature[0], 0.5f);
  EXPECT_NEAR(c.action_offset[0], -kPi / 6, 1e-6f);
  EXPECT_NEAR(c.action_scale[0], 0.7f * 2 * kPi / 3, 1e-6f);
  // a range alone limits, on every release of MuJoCo
  const std::string range_alone = mjcf("<joint axis=\"0 1 0\" range=\"-90 30\"/>");
  EXPECT_NEAR(parse_character(range_alone, "", "t").limit_upper[0], kPi / 6, 1e-6f);
  // leg .1 below the trunk's centre, .5 long, .05 round
  EXPECT_NEAR(c.stand_height, 0.65f, 1e-6f);
}

TEST(LoadCharacter, MergesThreeHingesIntoOneBall) {
  const std::string x = "<joint name=\"hip_x\" axis=\"1 0 0\" limited=\"true\" range=\"-10 20\" stiffness=\"1\"/>",
                    y = "<joint name=\"hip_y\" axis=\"0 1 0\" limited=\"true\" range=\"-30 40\" stiffness=\"2\"/>",
                    z = "<joint name=\"hip_z\" axis=\"0 0 1\" limited=\"true\" range=\"-50 60\" stiffness=\"3\"/>",
                    z_elsewhere = "<joint name=\"hip_z\" axis=\"0 0 1\" pos=\"0 0 .1\"/>";
  const Character ball = parse_character(mjcf(x + y + z), "", "test.xml");
  ASSERT_EQ(ball.num_joints(), 1);
  EXPECT_EQ(ball.joints[0].name, "hip");
  EXPECT_EQ(ball.joints[0].kind, JointKind::kBall);
  EXPECT_EQ(ball.num_dofs, 3);
  EXPECT_EQ(ball.kp, (std::vector<float>{1, 2, 3}));
  EXPECT_NEAR(ball.limit_lower[1], -30 * kPi / 180, 1e-6f);
  EXPECT_NEAR(ball.limit_upper[2], 60 * kPi / 180, 1e-6f);
  for (int d = 0; d < 3; ++d) {
    EXPECT_EQ(ball.action_offset[d], 0.0f);
    EXPECT_NEAR(ball.action_scale[d], 1.2f * 60 * kPi / 180, 1e-5f);
  }
  // another order, another anchor, or a missing axis: not one joint
  EXPECT_EQ(parse_character(mjcf(y + x + z), "", "t").num_joints(), 3);
  EXPECT_EQ(parse_character(mjcf(x + y + z_elsewhere), "", "t").num_joints(), 3);
  EXPECT_EQ(parse_character(mjcf(x + y), "", "t").num_joints(), 2);
}

TEST(LoadCharacter, ReadsLimitsOfBalls) {
  const auto ball = [](const std::string& attributes) {
    return parse_character(mjcf("<joint name=\"hip\" type=\"ball\" " + attributes + "/>"), "", "test.xml");
  };
  const Character user = ball("user=\"-10 20 -30 40 -50 60\" limited=\"true\" range=\"0 80\"");
  EXPECT_NEAR(user.limit_lower[0], -10 * kPi / 180, 1e-6f);
  EXPECT_NEAR(user.limit_upper[1], 40 * kPi / 180, 1e-6f);
  EXPECT_NEAR(user.joints[0].cone_limit, 80 * kPi / 180, 1e-6f);
  const Character cone = ball("limited=\"true\" range=\"0 80\"");
  EXPECT_NEAR(cone.limit_lower[2], -80 * kPi / 180, 1e-6f);
  const Character free = ball("limited=\"false\"");
  EXPECT_FLOAT_EQ(free.limit_upper[2], kPi);
  EXPECT_EQ(free.joints[0].cone_limit, 0.0f);
  EXPECT_FLOAT_EQ(free.action_scale[0], kPi);
  EXPECT_NE(error_of(mjcf("<joint name=\"hip\" type=\"ball\" user=\"10 -10 0 1 0 1\"/>")).find("`hip`"),
            std::string::npos);
}

TEST(LoadCharacter, TakesSettingsAndTheirDefaults) {
  const Character plain = parse_character(mjcf(kHinge), "", "test.xml");
  EXPECT_EQ(plain.key_bodies, std::vector<int>{1});
  EXPECT_EQ(plain.feet, std::vector<int>{1});
  EXPECT_EQ(plain.fall_height, (std::vector<float>{0.15f, 0.15f}));

  const Character set = parse_character(mjcf(kHinge),
                                        "key_bodies: [trunk, leg]\nfeet: [leg]\nfall_height: {default: .2, trunk: .4}\n"
                                        "default_pose: {hip: [-90]}\nexcluded_pairs: [[leg, trunk]]\n",
                                        "test.xml");
  EXPECT_EQ(set.key_bodies, (std::vector<int>{0, 1}));
  EXPECT_EQ(set.feet, std::vector<int>{1});
  EXPECT_EQ(set.fall_height, (std::vector<float>{0.4f, 0.2f}));
  EXPECT_NEAR(set.default_dof_pos[0], -kPi / 2, 1e-6f);
  // the leg points forward: the capsule's radius is what reaches lowest, .1 + .05 below the trunk's centre
  EXPECT_NEAR(set.stand_height, 0.15f, 1e-5f);
  EXPECT_EQ(set.excluded_pairs, (std::vector<std::pair<int, int>>{{0, 1}}));
  EXPECT_NE(set.hash, plain.hash);

  EXPECT_NE(error_of(mjcf(kHinge), "fete: [leg]").find("`feet`"), std::string::npos);
  EXPECT_NE(error_of(mjcf(kHinge), "feet: [lag]").find("did you mean `leg`"), std::string::npos);
  EXPECT_NE(error_of(mjcf(kHinge), "default_pose: {hip: [80]}").find("beyond its limits"), std::string::npos);
  EXPECT_NE(error_of(mjcf(kHinge), "default_pose: {hip: [1, 2]}").find("takes 1 value"), std::string::npos);
  EXPECT_NE(error_of(mjcf(kHinge), "excluded_pairs: [[leg]]").find("two bodies"), std::string::npos);
  EXPECT_NE(error_of(mjcf(kHinge), "feet: [leg").find("test.yaml:"), std::string::npos);
}

TEST(LoadCharacter, HashIgnoresLooksAndPlace) {
  const std::string text = mjcf(kHinge);
  const uint64_t hash = parse_character(text, "", "test.xml").hash;
  const auto changed = [&](const std::string& from, const std::string& to) {
    std::string other = text;
    other.replace(other.find(from), from.size(), to);
    return parse_character(other, "", "other.xml").hash;
  };
  EXPECT_EQ(changed("name=\"box\"", "name=\"crate\" rgba=\"1 0 0 1\""), hash);
  EXPECT_EQ(changed("0 0 5", "0 0 6"), hash);
  EXPECT_NE(changed("\"7\"", "\"8\""), hash);
  EXPECT_NE(changed("-90 30", "-90 31"), hash);
  EXPECT_NE(changed(".1 .1 .1", ".1 .1 .11"), hash);
  EXPECT_NE(changed("name=\"leg\"", "name=\"foot\""), hash);
}

TEST(LoadCharacter, RefusesWhatItCannotSimulateAndNamesIt) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "test.xml"},
      {"<mujoco>", "not well-formed"},
      {"<robot/>", "<mujoco>"},
      {"<mujoco/>", "no body"},
      {mjcf(kHinge, "", ""), "`trunk` must float"},
      {mjcf(kHinge, "", "<joint axis=\"0 0 1\"/>"), "`trunk` must float"},
      {mjcf("<joint name=\"rail\" type=\"slide\"/>"), "`rail` slides"},
      {mjcf("<freejoint/>"), "test.xml"},
      {mjcf("<joint name=\"hip\" ref=\"20\"/>"), "`ref`"},
      {mjcf("<geom type=\"mesh\" mesh=\"m\"/>"), "mesh"},
      {mjcf("<geom name=\"egg\" type=\"ellipsoid\" size=\".1 .1 .2\"/>"), "`egg`"},
      {mjcf(kHinge, "<asset><mesh name=\"m\" file=\"/etc/passwd\"/></asset>"), "<mesh>"},
      {mjcf(kHinge, "<include file=\"/etc/passwd\"/>"), "<include>"},
      {mjcf("<include file=\"/etc/passwd\"/>"), "<include>"},
      {mjcf("<composite type=\"grid\" count=\"999 999 1\"/>"), "<composite>"},
      {mjcf(kHinge, "<tendon><fixed><joint joint=\"hip\" coef=\"1\"/></fixed></tendon>"), "<tendon>"},
      {mjcf(kHinge, "<equality><weld body1=\"leg\"/></equality>"), "<equality>"},
      {mjcf(kHinge, "<worldbody><geom name=\"wall\" type=\"box\" size=\"1 1 1\"/></worldbody>"), "`wall`"},
      {mjcf(kHinge, "<worldbody><geom name=\"low\" type=\"plane\" pos=\"0 0 -1\" size=\"1 1 1\"/></worldbody>"),
       "`low`"},
      {mjcf(kHinge, "<worldbody><body name=\"ball\"><freejoint/><geom size=\".1\"/></body></worldbody>"),
       "`ball` is a second tree"},
      {mjcf("<joint name=\"hip\" axis=\"0 1 0\" limited=\"true\" range=\"30 -30\"/>"), "test.xml"},
      {mjcf("<joint name=\"hip\" axis=\"0 0 0\"/>"), "test.xml"},
      {mjcf("<joint name=\"hip\" stiffness=\"nan\"/>"), "test.xml"},
      {mjcf("<geom size=\"-1\"/>"), "test.xml"},
      {mjcf("<joint name=\"hip\" bogus=\"1\"/>"), "bogus"},
  };
  for (const auto& [text, expected] : cases) {
    const std::string error = error_of(text);
    EXPECT_NE(error.find(expected), std::string::npos) << error << "\nfor " << text;
    EXPECT_TRUE(error.starts_with("test.xml")) << error;
    EXPECT_EQ(error.find('\n'), std::string::npos) << error;
  }
}

TEST(LoadCharacter, ErrorsNameTheLineOfTheFile) {
  EXPECT_TRUE(error_of("<mujoco>\n<worldbody>\n\n<body><freejoint/>\n<geom size=\".1\"/>\n<geom bogus=\"1\"/></body>"
                       "</worldbody></mujoco>")
                  .starts_with("test.xml:6:"));
  // found by MuJoCo's compiler, not by its parser
  EXPECT_EQ(error_of("<mujoco>\n<worldbody>\n\n<body name=\"b\"><freejoint/>\n<joint/><geom size=\".1\"/></body>"
                     "</worldbody></mujoco>")
                .substr(0, 10),
            "test.xml:4");
  EXPECT_TRUE(error_of("<mujoco>\n<worldbody>\n<composite/></worldbody></mujoco>").starts_with("test.xml:3:"));
}

TEST(LoadCharacter, RefusesHugeAndMissingFiles) {
  EXPECT_NE(error_of(std::string(size_t{5} << 20, ' ')).find("larger than"), std::string::npos);
  std::string many;
  for (int i = 0; i < 300; ++i) many += "<body><joint/><geom size=\".1\"/></body>";
  EXPECT_NE(error_of(mjcf(many)).find("more than"), std::string::npos);
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += "<body>";
  EXPECT_NE(error_of("<mujoco><worldbody>" + deep).find("test.xml"), std::string::npos);
  EXPECT_THROW(load_character("/nonexistent/x.xml"), Error);
  EXPECT_THROW(load_character("/tmp"), Error);
}

// MuJoCo's errors, which would end the process, arrive as exceptions through its own frames.
TEST(MujocoModel, ErrorsInsideMujocoAreThrown) {
  compile_mjcf("<mujoco/>", "test");
  EXPECT_THROW(mju_error("boom"), Error);
  const MujocoModel model = compile_mjcf("<mujoco/>", "test");
  const MujocoData data(mj_makeData(model.get()));
  mjtNum velocity[6];
  EXPECT_THROW(mj_objectVelocity(model.get(), data.get(), mjOBJ_ACTUATOR, 0, velocity, 0), Error);
}

TEST(ToMjcf, KeepsOrderMassesAndShapes) {
  for (const char* file : {"knight.xml", "human.xml"}) {
    const Character c = load_character(kAssets / file);
    const std::string text = to_mjcf(c);
    const MujocoModel m = compile_mjcf(text, file);
    ASSERT_EQ(m->nbody, c.num_bodies() + 1);
    ASSERT_EQ(m->nv, 6 + c.num_dofs);
    ASSERT_EQ(m->ngeom, static_cast<int>(c.shapes.size()) + 1);
    for (int b = 0; b < c.num_bodies(); ++b) {
      EXPECT_EQ(mj_id2name(m.get(), mjOBJ_BODY, b + 1), c.bodies[b].name);
      EXPECT_EQ(m->body_parentid[b + 1], c.bodies[b].parent + 1);
      EXPECT_EQ(static_cast<float>(m->body_mass[b + 1]), c.bodies[b].mass);
      for (int k = 0; k < 3; ++k)
        EXPECT_NEAR(m->body_inertia[3 * (b + 1) + k], c.bodies[b].inertia[k], 1e-6 * c.bodies[b].inertia[k]);
    }
    for (const Joint& joint : c.joints) {
      const int id = mj_name2id(m.get(), mjOBJ_JOINT, joint.name.c_str());
      ASSERT_GE(id, 0) << joint.name;
      EXPECT_EQ(m->jnt_dofadr[id], 6 + joint.dof);
      EXPECT_EQ(m->jnt_type[id], joint.kind == JointKind::kBall ? mjJNT_BALL : mjJNT_HINGE);
      EXPECT_EQ(m->jnt_stiffness[id], 0.0);
      EXPECT_EQ(m->dof_damping[6 + joint.dof], 0.0);
    }
    EXPECT_NEAR(m->opt.timestep, 1.0 / 120.0, 1e-15);

    // reading it back gives the same tree and shapes
    const Character again = parse_character(text, "", file);
    ASSERT_EQ(again.shapes.size(), c.shapes.size());
    for (size_t s = 0; s < c.shapes.size(); ++s) {
      EXPECT_EQ(again.shapes[s].name, c.shapes[s].name);
      EXPECT_TRUE(again.shapes[s].pos.isApprox(c.shapes[s].pos, 1e-6f) || c.shapes[s].pos.isZero(1e-6f));
      EXPECT_TRUE(again.shapes[s].size.isApprox(c.shapes[s].size, 1e-6f));
    }
    EXPECT_FLOAT_EQ(again.stand_height, c.stand_height);
  }
}

TEST(ToMjcf, KeepsExclusionsAndEscapesNames) {
  const Character c = parse_character(mjcf("<joint name=\"a&quot;&lt;&amp;\" axis=\"0 1 0\"/>",
                                           "<contact><exclude body1=\"trunk\" body2=\"leg\"/></contact>"),
                                      "", "test.xml");
  EXPECT_EQ(c.excluded_pairs, (std::vector<std::pair<int, int>>{{0, 1}}));
  const MujocoModel m = compile_mjcf(to_mjcf(c), "test");
  EXPECT_EQ(m->nexclude, 1);
  EXPECT_STREQ(mj_id2name(m.get(), mjOBJ_JOINT, 1), "a\"<&");
}

// Damaged text loads or is refused; it neither crashes nor ends the process.
TEST(LoadCharacter, SurvivesDamagedText) {
  const std::string whole = read_file(kAssets / "knight.xml");
  Rng rng(11);
  int loaded = 0, refused = 0;
  const auto attempt = [&](const std::string& text) {
    try {
      const Character c = parse_character(text, "", "damaged.xml");
      compile_mjcf(to_mjcf(c), "damaged.xml");
      ++loaded;
    } catch (const Error&) {
      ++refused;
    }
  };
  for (int i = 0; i < 60; ++i) {
    std::string text = whole;
    for (int k = 0; k <= i % 4; ++k) text[rng.below(static_cast<int>(text.size()))] = static_cast<char>(rng.below(256));
    attempt(text);
    text = whole;
    for (int k = 0; k <= i % 4; ++k)
      text[rng.below(static_cast<int>(text.size()))] = "0123456789.-e \"<>"[rng.below(17)];
    attempt(text);
    attempt(whole.substr(0, rng.below(static_cast<int>(whole.size()))));
    text = whole;
    const size_t begin = text.rfind('\n', rng.below(static_cast<int>(text.size())));
    if (begin != std::string::npos) text.erase(begin, text.find('\n', begin + 1) - begin);
    attempt(text);
  }
  EXPECT_GT(loaded, 10);
  EXPECT_GT(refused, 60);
}

}  // namespace
}  // namespace calm
