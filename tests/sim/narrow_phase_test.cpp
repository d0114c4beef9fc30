// Contacts of two convex shapes against MuJoCo's, pair by pair. Where MuJoCo's portal ray only comes near the least
// overlap (all pairs with a cylinder), against a formula or a search over directions, and MuJoCo tells what touches.
#include "sim/narrow_phase.h"

#include <gtest/gtest.h>
#include <mujoco/mujoco.h>

#include <Eigen/Geometry>
#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>
#include <vector>

#include "base/rng.h"
#include "character/mujoco_model.h"

namespace calm {
namespace {

using Kind = ConvexKind;
using Vec = Vec3Of<double>;
using Quat = Eigen::Quaterniond;
using Shape = ConvexShape<double>;
using Contact = PairContact<double>;

template <class T>
Vec3Of<T> as(const Vec& v) {
  return {static_cast<T>(v.x), static_cast<T>(v.y), static_cast<T>(v.z)};
}

// In T's precision, told in double.
template <class T>
std::vector<Contact> found(const Shape& a, const Shape& b) {
  const auto shape = [](const Shape& s) {
    return ConvexShape<T>{s.kind, as<T>(s.size), as<T>(s.pos), {as<T>(s.rot.x), as<T>(s.rot.y), as<T>(s.rot.z)}};
  };
  PairContact<T> out[kMaxPairContacts];
  const int count = collide(shape(a), shape(b), out);
  std::vector<Contact> contacts;
  for (int i = 0; i < count; ++i)
    contacts.push_back({{out[i].point.x, out[i].point.y, out[i].point.z},
                        {out[i].normal.x, out[i].normal.y, out[i].normal.z},
                        out[i].distance});
  return contacts;
}

double length(const Vec& v) { return std::sqrt(dot(v, v)); }
const Contact& deepest(const std::vector<Contact>& contacts) {
  return *std::ranges::min_element(contacts, {}, &Contact::distance);
}

Vec any_direction(Rng& rng) {
  const Vec v{rng.normal(), rng.normal(), rng.normal()};
  return 1.0 / length(v) * v;
}
Quat any_rotation(Rng& rng) { return Quat(rng.normal(), rng.normal(), rng.normal(), rng.normal()).normalized(); }

Shape make(Kind kind, Vec size, Vec pos = {}, const Quat& rot = Quat::Identity()) {
  const Eigen::Matrix3d m = rot.toRotationMatrix();
  const auto column = [&](int i) { return Vec{m(0, i), m(1, i), m(2, i)}; };
  return {kind, size, pos, {column(0), column(1), column(2)}};
}

Shape any_shape(Kind kind, Rng& rng) {
  const auto size = [&] { return static_cast<double>(rng.uniform(0.05f, 0.3f)); };
  return make(kind, {size(), size(), size()}, any_direction(rng), any_rotation(rng));
}

// b, placed so that it is `depth` inside a.
void push(const Shape& a, Shape& b, double depth, Rng& rng) {
  const Vec way = any_direction(rng);
  double touching = 0.0, apart = 3.0;
  for (int i = 0; i < 50; ++i) {
    const double middle = 0.5 * (touching + apart);
    b.pos = a.pos + middle * way;
    (found<double>(a, b).empty() ? apart : touching) = middle;
  }
  b.pos = a.pos + touching * way;
  b.pos = b.pos - depth * found<double>(a, b).at(0).normal;
}

// What MuJoCo finds.
std::vector<Contact> expected(const Shape& a, const Shape& b) {
  const char* const names[] = {"sphere", "capsule", "cylinder", "box"};
  std::string bodies;
  for (const Shape& s : {a, b})
    bodies +=
        std::string("<body><freejoint/><geom size='1 1 1' type='") + names[static_cast<int>(s.kind)] + "'/></body>";
  static std::string last_bodies;
  static MujocoModel model;
  static MujocoData data;
  if (bodies != last_bodies) {
    data.reset();
    model = compile_mjcf("<mujoco><worldbody>" + bodies + "</worldbody></mujoco>", "pair");
    data.reset(mj_makeData(model.get()));
    last_bodies = bodies;
  }
  for (int i = 0; i < 2; ++i) {
    const Shape& s = i == 0 ? a : b;
    const double size[] = {s.size.x, s.size.y, s.size.z};
    std::ranges::copy(size, model->geom_size + 3 * i);
    model->geom_rbound[i] = 20.0;
    Eigen::Matrix3d m;
    m << s.rot.x.x, s.rot.y.x, s.rot.z.x, s.rot.x.y, s.rot.y.y, s.rot.z.y, s.rot.x.z, s.rot.y.z, s.rot.z.z;
    const Quat q(m);
    const double pose[] = {s.pos.x, s.pos.y, s.pos.z, q.w(), q.x(), q.y(), q.z()};
    std::ranges::copy(pose, data->qpos + 7 * i);
  }
  mj_fwdPosition(model.get(), data.get());
  std::vector<Contact> contacts;
  for (int c = 0; c < data->ncon; ++c) {
    const mjContact& k = data->contact[c];
    EXPECT_EQ(k.geom1, 0);
    const Contact contact{{k.pos[0], k.pos[1], k.pos[2]}, {k.frame[0], k.frame[1], k.frame[2]}, k.dist};
    // it repeats a capsule's contact with a box where it finds no second
    const auto same = [&](const Contact& other) { return length(other.point - contact.point) < 1e-9; };
    if (b.kind != Kind::kBox || std::ranges::none_of(contacts, same)) contacts.push_back(contact);
  }
  return contacts;
}

void expect_same(const Contact& got, const Contact& want, double bound, double distance) {
  EXPECT_LT(length(got.point - want.point), bound);
  EXPECT_LT(length(got.normal - want.normal), bound);
  EXPECT_NEAR(got.distance, distance, bound);
}

// Each of one has its like in the other.
bool same_points(const std::vector<Contact>& a, const std::vector<Contact>& b) {
  const auto within = [](const std::vector<Contact>& some, const std::vector<Contact>& all) {
    return std::ranges::all_of(some, [&](const Contact& x) {
      return std::ranges::any_of(all, [&](const Contact& y) { return length(x.point - y.point) < 1e-6; });
    });
  };
  return a.size() == b.size() && within(a, b) && within(b, a);
}

double extent(const Shape& s, const Vec& n) {
  const double x = std::abs(dot(n, s.rot.x)), y = std::abs(dot(n, s.rot.y)), z = std::abs(dot(n, s.rot.z));
  switch (s.kind) {
    case Kind::kSphere:
      return s.size.x;
    case Kind::kCapsule:
      return s.size.x + s.size.y * z;
    case Kind::kCylinder:
      return s.size.x * std::hypot(dot(n, s.rot.x), dot(n, s.rot.y)) + s.size.y * z;
    default:
      return s.size.x * x + s.size.y * y + s.size.z * z;
  }
}
// How far b must move along n to be free of a.
double overlap(const Shape& a, const Shape& b, const Vec& n) {
  return extent(a, n) + extent(b, n) - dot(n, b.pos - a.pos);
}

// Float finds what double does, but where a distance is lost in rounding, or takes another axis that is as good.
void expect_float(const Shape& a, const Shape& b, const std::vector<Contact>& doubles) {
  const std::vector<Contact> floats = found<float>(a, b);
  if (floats.empty() || doubles.empty()) {
    EXPECT_GT(floats.empty() && doubles.empty() ? 0.0 : deepest(floats.empty() ? doubles : floats).distance, -1e-5);
    return;
  }
  const Contact &got = deepest(floats), &want = deepest(doubles);
  EXPECT_NEAR(got.distance, want.distance, 1e-5);
  if (length(got.normal - want.normal) > 1e-4) {
    EXPECT_LT(overlap(a, b, got.normal), 1.001 * overlap(a, b, want.normal) + 1e-6);
  } else {
    EXPECT_TRUE(std::ranges::any_of(doubles, [&](const Contact& c) { return length(got.point - c.point) < 1e-4; }));
  }
}

// The least of any direction: the best of many, bettered by random steps.
double least_overlap(const Shape& a, const Shape& b, Rng& rng) {
  std::vector<std::pair<double, Vec>> some;
  for (int i = 0; i < 2000; ++i) {
    const Vec n = any_direction(rng);
    some.push_back({overlap(a, b, n), n});
  }
  std::ranges::sort(some, {}, [](const auto& x) { return x.first; });
  double least = some[0].first;
  for (int k = 0; k < 5; ++k) {
    auto [value, n] = some[k * 4];
    for (double step = 0.05; step > 1e-7;) {
      bool better = false;
      for (int i = 0; i < 12; ++i) {
        Vec m = n + step * any_direction(rng);
        m = 1.0 / length(m) * m;
        if (const double o = overlap(a, b, m); o < value) value = o, n = m, better = true;
      }
      if (!better) step *= 0.6;
    }
    least = std::min(least, value);
  }
  return least;
}

struct Pair {
  Kind a, b;
};
constexpr Pair kPairs[] = {{Kind::kSphere, Kind::kSphere},   {Kind::kSphere, Kind::kCapsule},
                           {Kind::kSphere, Kind::kCylinder}, {Kind::kSphere, Kind::kBox},
                           {Kind::kCapsule, Kind::kCapsule}, {Kind::kCapsule, Kind::kCylinder},
                           {Kind::kCapsule, Kind::kBox},     {Kind::kCylinder, Kind::kCylinder},
                           {Kind::kCylinder, Kind::kBox},    {Kind::kBox, Kind::kBox}};

TEST(NarrowPhase, SpheresAndCapsulesAreMujocos) {
  Rng rng(1);
  for (const Pair pair : {kPairs[0], kPairs[1], kPairs[3], kPairs[4]}) {
    int touching = 0;
    for (int i = 0; i < 4000; ++i) {
      const Shape a = any_shape(pair.a, rng);
      Shape b = any_shape(pair.b, rng);
      b.pos = a.pos + static_cast<double>(rng.uniform(0.0f, 0.8f)) * any_direction(rng);
      const auto got = found<double>(a, b), want = expected(a, b);
      ASSERT_EQ(got.size(), want.size());
      if (got.empty()) continue;
      ++touching;
      // a centre inside a box: MuJoCo tells the radius for the depth, and the nearest of six faces in one order
      double distance = want[0].distance;
      const bool inside = pair.b == Kind::kBox && std::abs(distance + a.size.x) < 1e-12;
      if (inside) distance = -overlap(a, b, got[0].normal);
      expect_same(got[0], want[0], 1e-9, distance);
      // between axes that all but meet, the normal is rounding's
      if (inside || distance + a.size.x + (pair.b == Kind::kBox ? 0.0 : b.size.x) > 0.02) expect_float(a, b, got);
    }
    EXPECT_GT(touching, 1000);
  }
}

TEST(NarrowPhase, ParallelCapsulesTouchTwice) {
  Rng rng(2);
  int twice = 0;
  for (int i = 0; i < 2000; ++i) {
    const Shape a = any_shape(Kind::kCapsule, rng);
    Shape b = any_shape(Kind::kCapsule, rng);
    b.rot = a.rot;
    if (i % 2 == 1) b.rot.y = -1.0 * b.rot.y, b.rot.z = -1.0 * b.rot.z;
    b.pos = a.pos + static_cast<double>(rng.uniform(0.05f, 0.5f)) * any_direction(rng);
    const auto got = found<double>(a, b), want = expected(a, b);
    ASSERT_EQ(got.size(), want.size());
    for (size_t c = 0; c < got.size(); ++c) expect_same(got[c], want[c], 1e-9, want[c].distance);
    twice += got.size() == 2;
    if (!got.empty() && deepest(got).distance < -1e-5) {
      EXPECT_EQ(found<float>(a, b).size(), got.size());
    }
  }
  EXPECT_GT(twice, 500);
}

// MuJoCo 2.2.2 has a portal ray for this pair, so the oracle is the cylinder's distance as a formula.
TEST(NarrowPhase, SphereOnCylinderIsExact) {
  Rng rng(3);
  int touching = 0, shallow = 0, like_mujoco = 0;
  for (int i = 0; i < 4000; ++i) {
    const Shape a = any_shape(Kind::kSphere, rng);
    Shape b = any_shape(Kind::kCylinder, rng);
    b.pos = a.pos + static_cast<double>(rng.uniform(0.0f, 0.8f)) * any_direction(rng);
    const auto surface = [&](const Vec& p) {
      const Vec q = transposed_times(b.rot, p - b.pos);
      const double out = std::hypot(q.x, q.y) - b.size.x, up = std::abs(q.z) - b.size.y;
      return std::min(std::max(out, up), 0.0) + std::hypot(std::max(out, 0.0), std::max(up, 0.0));
    };
    const auto got = found<double>(a, b), want = expected(a, b);
    const double distance = surface(a.pos) - a.size.x;
    ASSERT_EQ(got.size(), distance <= 0.0 ? 1u : 0u);
    if (std::abs(distance) > 1e-4) {
      ASSERT_EQ(got.size(), want.size());
    }
    if (got.empty()) continue;
    ++touching;
    const Contact& c = got[0];
    EXPECT_NEAR(c.distance, distance, 1e-12);
    const double step = 1e-6;  // away from where two faces are as near
    EXPECT_NEAR(surface(a.pos - step * c.normal), surface(a.pos) + step, 1e-12);
    EXPECT_NEAR(length(c.point - a.pos - (a.size.x + 0.5 * distance) * c.normal), 0.0, 1e-12);
    if (distance > -0.002 && !want.empty()) {
      ++shallow;
      like_mujoco +=
          std::abs(want[0].distance - distance) < 0.05 * -distance + 1e-4 && length(want[0].normal - c.normal) < 0.1;
    }
    // nearest faces that tie may come out either way
    if (surface(a.pos) > -0.02) expect_float(a, b, got);
  }
  EXPECT_GT(touching, 1500);
  EXPECT_GE(like_mujoco, shallow - 2);
}

TEST(NarrowPhase, CapsuleOnBoxIsMujocos) {
  Rng rng(4);
  int other_number = 0, other_points = 0, twice = 0;
  for (int i = 0; i < 3000; ++i) {
    const Shape a = any_shape(Kind::kCapsule, rng);
    Shape b = any_shape(Kind::kBox, rng);
    push(a, b, i % 3 == 0 ? 1e-4 : i % 3 == 1 ? 1e-3 : 1e-2, rng);
    const auto got = found<double>(a, b), want = expected(a, b);
    ASSERT_FALSE(got.empty() || want.empty());
    expect_same(deepest(got), deepest(want), 1e-9, deepest(want).distance);
    expect_float(a, b, got);
    other_number += got.size() != want.size();
    twice += got.size() == 2;
    other_points += got.size() == want.size() && !same_points(got, want);
    b.pos = b.pos + (1e-4 - deepest(got).distance) * deepest(got).normal;
    EXPECT_TRUE(found<double>(a, b).empty());
  }
  EXPECT_LE(other_number, 10);  // along an edge we may have the far end, too
  EXPECT_LE(other_points, 3);
  EXPECT_GT(twice, 30);

  // lying flat across, along an edge, and on a face
  const Shape box = make(Kind::kBox, {0.5, 0.2, 0.1});
  for (const double tilt : {0.0, 1e-8, -1e-8, 1e-4, -1e-4})
    for (const double side : {0.0, 0.15, 0.2, 0.23})
      for (const int way : {0, 1}) {
        Quat turn(Eigen::AngleAxisd(std::numbers::pi / 2 + tilt,
                                    way == 0 ? Eigen::Vector3d::UnitX() : Eigen::Vector3d::UnitY()));
        const Shape capsule = make(Kind::kCapsule, {0.1, 0.3, 0.0}, {0.0, way == 0 ? 0.0 : side, 0.19}, turn);
        if (way == 0 && side > 0.0) continue;
        for (const auto& got : {found<double>(capsule, box), found<float>(capsule, box)}) {
          ASSERT_EQ(got.size(), 2u) << tilt << " " << side << " " << way;
          EXPECT_GT(length(got[0].point - got[1].point), 0.3);
        }
      }
}

TEST(NarrowPhase, BoxOnBoxIsMujocos) {
  Rng rng(5);
  int faces = 0, edges = 0, other_points = 0, other_depth = 0;
  for (int i = 0; i < 4000; ++i) {
    const Shape a = any_shape(Kind::kBox, rng);
    Shape b = any_shape(Kind::kBox, rng);
    if (i % 4 == 0) {  // nearly aligned
      b.rot = a.rot;
      const Quat turn(Eigen::AngleAxisd(static_cast<double>(rng.uniform(0.001f, 0.1f)),
                                        Eigen::Vector3d(rng.normal(), rng.normal(), rng.normal()).normalized()));
      b.rot = make(Kind::kBox, b.size, {}, turn).rot * b.rot;
    }
    push(a, b, i % 3 == 0 ? 1e-4 : i % 3 == 1 ? 1e-3 : 1e-2, rng);
    const auto got = found<double>(a, b), want = expected(a, b);
    ASSERT_FALSE(got.empty() || want.empty());
    bool face = false;
    for (const Shape& s : {a, b})
      for (const Vec& axis : {s.rot.x, s.rot.y, s.rot.z})
        face = face || std::abs(dot(axis, want[0].normal)) > 1.0 - 1e-12;
    // MuJoCo 2.2.2 halves distances at a face (mujoco_warp #822), not where edges cross
    EXPECT_LT(length(got[0].normal - want[0].normal), 1e-9);
    other_depth += std::abs(deepest(got).distance - (face ? 2.0 : 1.0) * deepest(want).distance) > 1e-9;
    EXPECT_NEAR(deepest(got).distance, -overlap(a, b, got[0].normal), 1e-9);
    expect_float(a, b, got);
    (face ? faces : edges)++;
    if (face) {
      EXPECT_TRUE(same_points(got, want)) << got.size() << " " << want.size();
    } else {
      other_points += !same_points(got, want);
    }
    b.pos = b.pos + (1e-4 - deepest(got).distance) * deepest(got).normal;
    EXPECT_TRUE(found<double>(a, b).empty());
  }
  EXPECT_GT(faces, 1000);
  EXPECT_GT(edges, 1000);
  EXPECT_LE(other_depth, 2);
  EXPECT_LT(other_points, edges / 20);

  // any pose: the same touch
  int touching = 0;
  for (int i = 0; i < 4000; ++i) {
    const Shape a = any_shape(Kind::kBox, rng);
    Shape b = any_shape(Kind::kBox, rng);
    b.pos = a.pos + static_cast<double>(rng.uniform(0.0f, 0.8f)) * any_direction(rng);
    const auto got = found<double>(a, b), want = expected(a, b);
    ASSERT_EQ(got.empty(), want.empty());
    if (got.empty()) continue;
    ++touching;
    EXPECT_LT(length(got[0].normal - want[0].normal), 1e-9);
    EXPECT_LT(-deepest(got).distance, least_overlap(a, b, rng) + 1e-9);
    if (touching == 500) break;
  }
  EXPECT_EQ(touching, 500);
}

TEST(NarrowPhase, CylindersTouchAtLeastOverlap) {
  Rng rng(6);
  for (const Pair pair : {kPairs[5], kPairs[7], kPairs[8]}) {
    int like_mujoco = 0, local = 0;
    for (int i = 0; i < 900; ++i) {
      const Shape a = any_shape(pair.a, rng);
      Shape b = any_shape(pair.b, rng);
      const double depth = i % 3 == 0 ? 1e-3 : i % 3 == 1 ? 1e-2 : 5e-2;
      push(a, b, depth, rng);
      const auto got = found<double>(a, b), want = expected(a, b);
      ASSERT_FALSE(got.empty() || want.empty());
      const Contact& c = deepest(got);
      const double free = overlap(a, b, c.normal);
      // lines and faces that all but lie flat are cut as flat
      EXPECT_NEAR(free, -c.distance, 1e-3);
      const double excess = free - least_overlap(a, b, rng);
      EXPECT_LT(excess, depth < 1e-2 ? 1e-6 : 0.3 * depth);
      local += excess > 1e-6;
      // the point is within both
      for (const Shape& s : {a, b}) {
        const Shape probe = make(Kind::kSphere, {1.0, 0.0, 0.0}, c.point);
        if (s.kind != Kind::kCapsule) {
          EXPECT_LT(found<double>(probe, s).at(0).distance + 1.0, 1e-5 + 0.2 * depth);
        }
      }
      const auto floats = found<float>(a, b);
      ASSERT_FALSE(floats.empty());
      if (i % 3 == 0) {
        EXPECT_LT(overlap(a, b, deepest(floats).normal), depth + 5e-5);
        EXPECT_NEAR(deepest(floats).distance, c.distance, 5e-4);
        // its one ray ends on a face or edge beside the nearest now and then
        like_mujoco +=
            length(want[0].normal - c.normal) < 0.1 && std::abs(want[0].distance - c.distance) < 0.05 * depth + 1e-4;
      }
      b.pos = b.pos + (free + 1e-4) * c.normal;
      EXPECT_TRUE(found<double>(a, b).empty());
      EXPECT_TRUE(expected(a, b).empty());
    }
    EXPECT_GE(like_mujoco, 255);  // of 300
    EXPECT_LE(local, 9);

    // any pose: the same touch
    int touching = 0;
    for (int i = 0; i < 3000; ++i) {
      const Shape a = any_shape(pair.a, rng);
      Shape b = any_shape(pair.b, rng);
      b.pos = a.pos + static_cast<double>(rng.uniform(0.0f, 0.9f)) * any_direction(rng);
      const auto got = found<double>(a, b), want = expected(a, b);
      touching += !got.empty();
      if (got.empty() != want.empty()) {
        EXPECT_GT(deepest(got.empty() ? want : got).distance, -1e-4);
      }
      if (found<float>(a, b).empty() != got.empty()) {
        EXPECT_GT(got.empty() ? 0.0 : deepest(got).distance, -1e-4);
      }
    }
    EXPECT_GT(touching, 1000);
  }
}

// Stacked along z, b on a, 1 mm in: as many contacts as make it stand.
TEST(NarrowPhase, FlatFacesGiveSeveralPoints) {
  const Quat lying(Eigen::AngleAxisd(std::numbers::pi / 2, Eigen::Vector3d::UnitX()));
  const Quat turned(Eigen::AngleAxisd(0.3, Eigen::Vector3d::UnitZ()));
  const Vec plate{0.5, 0.4, 0.1}, pole{0.2, 0.3, 0.0};
  struct Case {
    Shape a, b;
    size_t count;
  };
  const auto on = [](Shape a, Shape b, size_t count) {
    b.pos.z = extent(a, {0, 0, 1}) + extent(b, {0, 0, 1}) - 0.001;
    return Case{a, b, count};
  };
  const Case cases[] = {
      on(make(Kind::kBox, plate), make(Kind::kBox, {0.2, 0.2, 0.2}, {0.1, 0.1, 0.0}), 4),
      on(make(Kind::kBox, plate), make(Kind::kBox, plate), 4),
      on(make(Kind::kBox, plate), make(Kind::kBox, plate, {0.2, 0.3, 0.0}), 4),
      on(make(Kind::kBox, {0.2, 0.2, 0.2}), make(Kind::kBox, {0.2, 0.2, 0.2}, {}, turned), 8),
      on(make(Kind::kCylinder, pole), make(Kind::kBox, plate), 4),
      on(make(Kind::kCylinder, pole), make(Kind::kBox, plate, {0.55, 0.0, 0.0}), 3),
      on(make(Kind::kCylinder, pole), make(Kind::kBox, {0.1, 0.1, 0.1}, {0.02, 0.0, 0.0}), 4),
      on(make(Kind::kCylinder, pole, {}, lying), make(Kind::kBox, plate), 2),
      on(make(Kind::kCylinder, pole), make(Kind::kCylinder, pole), 8),
      on(make(Kind::kCylinder, pole), make(Kind::kCylinder, {0.1, 0.3, 0.0}, {0.05, 0.0, 0.0}), 4),
      on(make(Kind::kCylinder, pole, {}, lying), make(Kind::kCylinder, pole, {0.0, 0.1, 0.0}, lying), 2),
      on(make(Kind::kCylinder, pole, {}, lying), make(Kind::kCylinder, pole), 2),
      on(make(Kind::kCapsule, {0.05, 0.3, 0.0}, {}, lying), make(Kind::kCylinder, pole), 2),
      on(make(Kind::kCapsule, pole, {}, lying), make(Kind::kCylinder, pole, {}, lying), 2),
      on(make(Kind::kCapsule, pole, {}, lying), make(Kind::kBox, plate), 2)};
  for (const Case& c : cases)
    for (const auto& got : {found<double>(c.a, c.b), found<float>(c.a, c.b)}) {
      EXPECT_EQ(got.size(), c.count) << &c - cases;
      Vec low{1, 1, 0}, high{-1, -1, 0};
      for (const Contact& k : got) {
        EXPECT_NEAR(k.distance, -0.001, 1e-6);
        EXPECT_NEAR(k.normal.z, 1.0, 1e-6);
        EXPECT_NEAR(k.point.z, extent(c.a, {0, 0, 1}) - 0.0005, 1e-6);
        low = {std::min(low.x, k.point.x), std::min(low.y, k.point.y), 0.0};
        high = {std::max(high.x, k.point.x), std::max(high.y, k.point.y), 0.0};
      }
      EXPECT_GT(length(high - low), 0.19) << &c - cases;
    }
}

TEST(NarrowPhase, TinyOnHugeFarFromTheOrigin) {
  Rng rng(7);
  for (const Pair pair : kPairs)
    for (int i = 0; i < 300; ++i) {
      Shape a = any_shape(pair.a, rng), b = any_shape(pair.b, rng);
      Shape& tiny = i % 2 == 0 ? a : b;
      tiny.size = 0.01 / 0.3 * tiny.size;
      (i % 2 == 0 ? b : a).size = {5.0, 5.0, 5.0};
      const Vec way = any_direction(rng);
      double touching = 0.0, apart = 30.0;
      for (int k = 0; k < 50; ++k) {
        const double middle = 0.5 * (touching + apart);
        b.pos = a.pos + middle * way;
        (found<double>(a, b).empty() ? apart : touching) = middle;
      }
      // in from there by 1 mm, and 10 m away
      b.pos = a.pos + touching * way;
      b.pos = b.pos - 1e-3 * found<double>(a, b).at(0).normal;
      const Vec far{10.0, -10.0, 10.0};
      a.pos = a.pos + far, b.pos = b.pos + far;
      const auto got = found<double>(a, b), floats = found<float>(a, b);
      ASSERT_FALSE(got.empty() || floats.empty());
      EXPECT_NEAR(deepest(floats).distance, deepest(got).distance, 3e-5);
      EXPECT_NEAR(overlap(a, b, deepest(got).normal), 1e-3, 5e-6);
      EXPECT_NEAR(overlap(a, b, deepest(floats).normal), 1e-3, 1e-4);
    }
}

// Right angles, positions on a grid, sizes that agree: whatever can vanish does.
TEST(NarrowPhase, NothingButFiniteContacts) {
  Rng rng(8);
  int touching = 0;
  for (int i = 0; i < 100000; ++i) {
    const Pair pair = kPairs[i % 10];
    Shape shapes[2] = {any_shape(pair.a, rng), any_shape(pair.b, rng)};
    for (Shape& s : shapes) {
      if (rng.below(4) > 0) {
        const auto quarter = [&](const Eigen::Vector3d& axis) {
          return Quat(Eigen::AngleAxisd(rng.below(8) * std::numbers::pi / (rng.below(4) == 0 ? 4 : 2), axis));
        };
        s.rot = make(s.kind, {}, {}, quarter(Eigen::Vector3d::UnitX()) * quarter(Eigen::Vector3d::UnitZ())).rot;
      }
      const auto grid = [&] { return 0.1 * (rng.below(5) - 2); };
      if (rng.below(4) > 0) s.pos = {grid(), grid(), grid()};
      if (rng.below(4) > 0) s.size = {0.1 * (1 + rng.below(2)), 0.1 * (1 + rng.below(2)), 0.1 * (1 + rng.below(2))};
      if (rng.below(50) == 0) s.size.y = 0.0;  // no length
    }
    if (rng.below(10) == 0) shapes[1].pos = shapes[0].pos;
    for (const auto& got : {found<float>(shapes[0], shapes[1]), found<double>(shapes[0], shapes[1])}) {
      touching += !got.empty();
      ASSERT_LE(got.size(), static_cast<size_t>(kMaxPairContacts));
      for (const Contact& c : got) {
        ASSERT_TRUE(std::isfinite(c.point.x) && std::isfinite(c.point.y) && std::isfinite(c.point.z));
        ASSERT_NEAR(length(c.normal), 1.0, 1e-5);
        ASSERT_LE(c.distance, 0.0);
        ASSERT_GE(c.distance, -2.0);
        ASSERT_LT(length(c.point - shapes[0].pos), 2.0);
      }
    }
  }
  EXPECT_GT(touching, 50000);
}

}  // namespace
}  // namespace calm
