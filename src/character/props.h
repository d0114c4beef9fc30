// Free bodies beside the character: something to strike, something thrown at it. One shape each, moving freely.
#pragma once

#include <string>
#include <vector>

#include "character/character.h"

namespace calm {

struct Prop {
  std::string name;
  ShapeKind kind = ShapeKind::kBox;
  Vec3 size = Vec3::Zero();  // as Shape's, m
  float mass = 1.0f;         // kg, uniformly filled
  float friction = 1.0f;     // sliding
  Vec3 pos = Vec3::Zero();   // of its centre at the start, world, m
  Quat rot = Quat::Identity();
};

// As to_mjcf(character), with the props beside it, in order, each on a free joint. Throws Error on a prop that cannot
// be (no mass, no size, a name taken).
std::string to_mjcf(const Character& character, const std::vector<Prop>& props);

// Principal moments about the centre, kg m².
Vec3 prop_inertia(const Prop& prop);

}  // namespace calm
