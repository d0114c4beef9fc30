#include "learn/latent_map.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/math.h"
#include "base/rng.h"

namespace calm {
namespace {

Eigen::VectorXf unit(std::initializer_list<float> values) {
  Eigen::VectorXf v(values.size());
  std::ranges::copy(values, v.begin());
  return v.normalized();
}

TEST(GreatArc, GoesEvenlyOverTheSphere) {
  const Eigen::VectorXf a = unit({1, 0, 0, 0}), b = unit({0, 1, 0, 0});
  EXPECT_LT((great_arc(a, b, 0.0f) - a).norm(), 1e-6f);
  EXPECT_LT((great_arc(a, b, 1.0f) - b).norm(), 1e-6f);
  for (int i = 0; i <= 10; ++i) {
    const float t = static_cast<float>(i) / 10.0f;
    const Eigen::VectorXf z = great_arc(a, b, t);
    EXPECT_NEAR(z.norm(), 1.0f, 1e-6f);
    EXPECT_NEAR(std::acos(z.dot(a)), 0.5f * kPi * t, 1e-4f);
  }
  EXPECT_LT((great_arc(a, a, 0.3f) - a).norm(), 1e-6f);
  EXPECT_THROW(great_arc(a, -a, 0.5f), Error);
}

TEST(NearestLatents, AreSortedAndNoMoreThanThereAre) {
  Policy policy;
  for (const auto& z : {unit({1, 0, 0}), unit({0, 1, 0}), unit({1, 1, 0})}) policy.latents.push_back({"", {}, z, 1.0f});
  const auto near = nearest_latents(policy, unit({1, 0.2f, 0}), 9);
  ASSERT_EQ(near.size(), 3u);
  EXPECT_EQ(near[0].clip, 0);
  EXPECT_EQ(near[1].clip, 2);
  EXPECT_EQ(near[2].clip, 1);
}

// A small cap of a sphere is flat, nearly: its map keeps all distances.
TEST(PlaneMap, KeepsTheAnglesOfAFlatPatchAndRepeats) {
  Rng rng(3, 1);
  Eigen::MatrixXf points(60, 8);
  for (Eigen::Index i = 0; i < points.rows(); ++i) {
    points.row(i).setZero();
    points(i, 0) = 1.0f, points(i, 3) = 0.1f * rng.uniform(-1.0f, 1.0f), points(i, 5) = 0.1f * rng.uniform(-1.0f, 1.0f);
    points.row(i).normalize();
  }
  const PlaneMap map = map_to_plane(points);
  EXPECT_LT(map.stress, 0.01);
  for (Eigen::Index i = 1; i < points.rows(); ++i)
    EXPECT_NEAR((map.points.row(i) - map.points.row(0)).norm(), std::acos(points.row(i).dot(points.row(0))), 3e-3);
  EXPECT_EQ(map_to_plane(points).points, map.points);
  // right angles between all have no such map, and the stress says so
  EXPECT_GT(map_to_plane(Eigen::MatrixXf::Identity(20, 20)).stress, 0.2);
  // nor do they end on one spot
  const PlaneMap apart = map_to_plane(Eigen::MatrixXf::Identity(10, 10));
  for (Eigen::Index i = 0; i < 10; ++i)
    for (Eigen::Index j = 0; j < i; ++j) EXPECT_GT((apart.points.row(i) - apart.points.row(j)).norm(), 0.1);
  EXPECT_THROW(map_to_plane(points.topRows(2)), Error);
}

}  // namespace
}  // namespace calm
