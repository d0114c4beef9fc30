#include "sim/floor_contacts.h"

namespace calm {

std::vector<LinkShape> colliding_shapes(const Character& character, const Articulation& articulation) {
  std::vector<LinkShape> shapes;
  for (size_t i = 0; i < character.shapes.size(); ++i) {
    const Shape& shape = character.shapes[i];
    if (!shape.collides) continue;
    const Eigen::Matrix3d& body_rot = articulation.body_rot[shape.body];
    shapes.push_back({.kind = shape.kind,
                      .link = articulation.body_link[shape.body],
                      .shape = static_cast<int>(i),
                      .pos = articulation.body_pos[shape.body] + body_rot * shape.pos.cast<double>(),
                      .rot = body_rot * shape.rot.cast<double>().normalized().toRotationMatrix(),
                      .size = shape.size.cast<double>(),
                      .friction = shape.friction.x()});
  }
  return shapes;
}

}  // namespace calm
