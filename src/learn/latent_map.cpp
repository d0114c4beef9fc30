#include "learn/latent_map.h"

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/rng.h"

namespace calm {

Eigen::VectorXf great_arc(const Eigen::VectorXf& a, const Eigen::VectorXf& b, float t) {
  const float angle = std::acos(std::clamp(a.dot(b), -1.0f, 1.0f));
  if (angle > 3.1415f) fail("latents: the two lie opposite each other; no way between them is the shortest");
  if (angle < 1e-4f) return b;
  return ((std::sin((1.0f - t) * angle) * a + std::sin(t * angle) * b) / std::sin(angle)).normalized();
}

std::vector<LatentNeighbour> nearest_latents(const Policy& policy, const Eigen::VectorXf& z, int count) {
  std::vector<LatentNeighbour> all;
  for (size_t c = 0; c < policy.latents.size(); ++c) all.push_back({static_cast<int>(c), policy.latents[c].z.dot(z)});
  std::ranges::stable_sort(all, std::ranges::greater(), &LatentNeighbour::cosine);
  all.resize(std::min(all.size(), static_cast<size_t>(std::max(count, 0))));
  return all;
}

Eigen::MatrixXf encode_windows(const MotionEncoder& encoder, const MotionLibrary& library, int clip, float dt) {
  const float apart = static_cast<float>(encoder.stride) * dt, span = static_cast<float>(encoder.frames - 1) * apart;
  const float length = library.clip(clip).length();
  std::vector<float> window(static_cast<size_t>(encoder.frames) * library.character().motion_feature_size());
  std::vector<Eigen::VectorXf> points;
  for (float newest = std::min(span, length); newest <= length + 1e-4f; newest += dt) {
    library.window_features({clip, newest}, encoder.frames, apart, window.data());
    points.push_back(encoder.encode(window.data()));
  }
  Eigen::MatrixXf rows(points.size(), points.front().size());
  for (size_t i = 0; i < points.size(); ++i) rows.row(static_cast<Eigen::Index>(i)) = points[i].transpose();
  return rows;
}

PlaneMap map_to_plane(const Eigen::MatrixXf& points, int iterations) {
  const Eigen::Index n = points.rows();
  if (n < 3) fail("latents: a map needs 3 points, there are {}", n);
  const Eigen::MatrixXd cosines = (points * points.transpose()).cast<double>();
  const Eigen::MatrixXd angles = cosines.array().max(-1.0).min(1.0).acos();

  // principal components; an eigenvector's sign is fixed, so that the same points give the same map
  const Eigen::MatrixXd centred = points.cast<double>().rowwise() - points.cast<double>().colwise().mean();
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(centred.transpose() * centred);
  PlaneMap map;
  map.points.resize(n, 2);
  for (int k = 0; k < 2; ++k) {
    Eigen::VectorXd axis = solver.eigenvectors().col(std::max<Eigen::Index>(centred.cols() - 1 - k, 0));
    Eigen::Index largest = 0;
    axis.cwiseAbs().maxCoeff(&largest);
    if (axis[largest] < 0.0) axis = -axis;
    map.points.col(k) = centred * axis;
  }
  // what lies on one spot would stay together
  Rng rng(1, 0);
  for (double& x : map.points.reshaped()) x += 1e-6 * rng.uniform(-1.0f, 1.0f);

  // each step replaces the points by the minimum of a quadratic that touches the stress from above
  Eigen::MatrixXd pull(n, n);
  for (int i = 0; i < iterations; ++i) {
    for (Eigen::Index r = 0; r < n; ++r)
      for (Eigen::Index c = 0; c < n; ++c) {
        const double distance = (map.points.row(r) - map.points.row(c)).norm();
        pull(r, c) = r == c || distance < 1e-12 ? 0.0 : -angles(r, c) / distance;
      }
    for (Eigen::Index r = 0; r < n; ++r) pull(r, r) = -pull.row(r).sum();
    map.points = (pull * map.points / static_cast<double>(n)).eval();
  }
  double wrong = 0.0, all = 0.0;
  for (Eigen::Index r = 0; r < n; ++r)
    for (Eigen::Index c = 0; c < r; ++c) {
      const double error = (map.points.row(r) - map.points.row(c)).norm() - angles(r, c);
      wrong += error * error, all += angles(r, c) * angles(r, c);
    }
  map.stress = all > 0.0 ? std::sqrt(wrong / all) : 0.0;
  return map;
}

}  // namespace calm
