// The sphere of latents: ways over it, neighbours on it, and a map of it.
#pragma once

#include <string>
#include <vector>

#include "motion/library.h"
#include "runtime/encoder.h"

namespace calm {

// The point at t in [0, 1] of the shortest way over the sphere from a to b, both unit; the angle grows evenly. Throws
// Error where they lie opposite each other, as no way is then the shortest.
Eigen::VectorXf great_arc(const Eigen::VectorXf& a, const Eigen::VectorXf& b, float t);

struct LatentNeighbour {
  int clip = 0;  // of policy.latents
  float cosine = 0.0f;
};
// The `count` clips whose latents are nearest to unit z, nearest first.
std::vector<LatentNeighbour> nearest_latents(const Policy& policy, const Eigen::VectorXf& z, int count);

// Latents of all windows of a clip, dt apart, the first as early as the encoder's frames fit (windows x latent size).
Eigen::MatrixXf encode_windows(const MotionEncoder& encoder, const MotionLibrary& library, int clip, float dt);

// Points in the plane whose distances are as near as can be to the angles between unit points (n x d).
struct PlaneMap {
  Eigen::MatrixX2d points;
  double stress = 0.0;  // root of the squared errors' sum over that of the squared angles; 0 is exact
};
// By stress majorisation (SMACOF, de Leeuw 1977) from the two principal components. Deterministic; O(n²) an iteration.
PlaneMap map_to_plane(const Eigen::MatrixXf& points, int iterations = 300);

}  // namespace calm
