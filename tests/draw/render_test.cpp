// Renders a figure made here and looks where it is in the picture. Skipped where rendering is not built in.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/error.h"
#include "draw/draw.h"

namespace calm {
namespace {

// One red upright capsule of 1 m standing on the floor at the origin.
Character post() {
  Character character;
  character.name = "post";
  character.bodies.resize(1);
  Shape shape;
  shape.kind = ShapeKind::kCapsule;
  shape.size = Vec3(0.2f, 0.3f, 0.0f);
  shape.rgba = {0.9f, 0.1f, 0.1f, 1.0f};
  character.shapes.push_back(shape);
  return character;
}

CharacterState at(const Character& character, float x, float y, float z) {
  CharacterState state(character);
  Vec3Map(state.body_pos.data()) = Vec3(x, y, z);
  QuatMap(state.body_rot.data()) = Quat::Identity();
  return state;
}

bool red(const Image& image, int x, int y) {
  const uint8_t* p = &image.rgb[static_cast<size_t>(3 * (y * image.width + x))];
  return p[0] > 2 * p[1] && p[0] > 2 * p[2] && p[0] > 60;
}

struct Extent {
  int left, right, top, bottom, count;
};
Extent red_extent(const Image& image) {
  Extent e{image.width, -1, image.height, -1, 0};
  for (int y = 0; y < image.height; ++y)
    for (int x = 0; x < image.width; ++x)
      if (red(image, x, y)) {
        e.left = std::min(e.left, x), e.right = std::max(e.right, x);
        e.top = std::min(e.top, y), e.bottom = std::max(e.bottom, y);
        ++e.count;
      }
  return e;
}

bool starts() {
  try {
    Renderer renderer(8, 8);
    return true;
  } catch (const Error& error) {
    return std::string(error.what()).find("draws no pictures") == std::string::npos;
  }
}
#define SKIP_WITHOUT_RENDERING() \
  if (!starts()) GTEST_SKIP() << "built with CALM_RENDER=OFF"

TEST(Render, OneStateIsFramedInTheMiddle) {
  SKIP_WITHOUT_RENDERING();
  const Character character = post();
  const CharacterState state = at(character, 3.0f, -2.0f, 0.5f);
  const Image image = draw_states(character, {&state, 1}, 200, 160);
  const Extent e = red_extent(image);
  ASSERT_GT(e.count, 500);
  EXPECT_NEAR(e.left + e.right, 199, 6);
  EXPECT_NEAR(e.top + e.bottom, 159, 6);
  EXPECT_GT(e.bottom - e.top, 110);
  EXPECT_LT(e.bottom - e.top, 150);
}

TEST(Render, StatesRunFromLeftToRightAndAllAreSeen) {
  SKIP_WITHOUT_RENDERING();
  const Character character = post();
  std::vector<CharacterState> states;
  for (int i = 0; i < 4; ++i) states.push_back(at(character, 1.0f * static_cast<float>(i), 0.0f, 0.5f));
  // raise the one furthest along x: it must be on the right and higher up
  states[3].body_pos[2] = 0.9f;
  Camera camera;
  camera.azimuth = 90.0f;
  const Image image = draw_states(character, states, 400, 160, camera);
  int runs = 0;
  std::vector<int> top(400, 160);
  for (int x = 0; x < 400; ++x) {
    for (int y = 159; y >= 0; --y)
      if (red(image, x, y)) top[static_cast<size_t>(x)] = y;
    runs += x > 0 && top[static_cast<size_t>(x)] < 160 && top[static_cast<size_t>(x - 1)] == 160;
  }
  EXPECT_EQ(runs, 4);
  const Extent e = red_extent(image);
  EXPECT_GT(e.left, 5);
  EXPECT_LT(e.right, 395);
  EXPECT_LT(*std::min_element(top.begin() + 300, top.end()), *std::min_element(top.begin(), top.begin() + 300) - 10);
}

TEST(Render, FloorIsCheckeredAndTheShadowFallsOnIt) {
  SKIP_WITHOUT_RENDERING();
  const Character character = post();
  Camera camera;
  camera.elevation = -35.0f;
  camera.azimuth = 90.0f;
  camera.distance = 8.0f;
  camera.look_at = Vec3(0.0f, 0.0f, 0.5f);
  const CharacterState here = at(character, 0.0f, 0.0f, 0.5f), away = at(character, 100.0f, 0.0f, 0.5f);
  Renderer renderer(200, 160);
  const Image with = renderer.draw(character, {&here, 1}, camera);
  const Image without = renderer.draw(character, {&away, 1}, camera);
  int least = 255, most = 0, darker = 0;
  for (int y = 60; y < 160; ++y)
    for (int x = 0; x < 200; ++x) {
      const size_t i = static_cast<size_t>(3 * (y * 200 + x));
      least = std::min<int>(least, without.rgb[i]);
      most = std::max<int>(most, without.rgb[i]);
      darker += !red(with, x, y) && with.rgb[i] + 25 < without.rgb[i];
    }
  EXPECT_GT(most - least, 15);
  EXPECT_LT(most, 250);
  EXPECT_GT(darker, 150);
}

TEST(Render, SameStateGivesSamePictureFromAnyRenderer) {
  SKIP_WITHOUT_RENDERING();
  const Character character = post();
  const CharacterState state = at(character, 0.0f, 0.0f, 0.5f), other = at(character, 1.0f, 2.0f, 1.5f);
  Renderer a(90, 70), b(64, 64);
  const Image first = a.draw(character, {&state, 1});
  b.draw(character, {&other, 1});
  a.draw(character, {&other, 1});
  EXPECT_EQ(a.draw(character, {&state, 1}).rgb, first.rgb);
  EXPECT_EQ(draw_states(character, {&state, 1}, 90, 70).rgb, first.rgb);
}

TEST(Render, FollowCameraKeepsTheRootInTheMiddle) {
  SKIP_WITHOUT_RENDERING();
  Character character = post();
  character.stand_height = 0.5f;
  const CharacterState state = at(character, -7.0f, 4.0f, 0.5f);
  const Extent e = red_extent(draw_scene(character, state, 160, 160));
  ASSERT_GT(e.count, 200);
  EXPECT_NEAR(e.left + e.right, 159, 4);
  EXPECT_NEAR(e.top + e.bottom, 159, 6);
}

TEST(Render, WhatCannotBeDrawnIsRefused) {
  EXPECT_THROW(Renderer(0, 10), Error);
  EXPECT_THROW(Renderer(10, 100000), Error);
  SKIP_WITHOUT_RENDERING();
  const Character character = post();
  CharacterState state = at(character, 0.0f, 0.0f, std::numeric_limits<float>::quiet_NaN());
  Renderer renderer(16, 16);
  EXPECT_THROW(renderer.draw(character, {&state, 1}), Error);
  EXPECT_THROW(renderer.draw(character, {}), Error);
}

}  // namespace
}  // namespace calm
