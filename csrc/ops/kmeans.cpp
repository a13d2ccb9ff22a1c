#include "ops/kmeans.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

// Restarts run in parallel; threads inside of one would make sums depend on how many there are.
#define EIGEN_DONT_PARALLELIZE
#define EIGEN_MPL2_ONLY
#include <Eigen/Core>
#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "core/check.h"

namespace vpd::ops {
namespace {
using at::Tensor;
using Eigen::Index;
using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Eigen::VectorXd;

constexpr Index kBlock = 256;  // points whose distances are computed at once
constexpr int64_t kNone = -1;

Matrix read(const char* name, const char* what, const Tensor& rows) {
  VPD_CHECK(rows.dim() == 2 && rows.is_floating_point() && rows.numel() > 0, name, ": ", what,
            " must be floating point [n, d] with at least one value, got ", rows.dtype(), " ",
            rows.sizes());
  const Tensor host = rows.detach().to(at::kCPU, at::kDouble).contiguous();
  VPD_CHECK(has_values(host), name, ": ", what, " must have values, got a meta tensor");
  Matrix own = Eigen::Map<const Matrix>(host.const_data_ptr<double>(), host.size(0), host.size(1));
  for (Index i = 0; i < own.rows(); ++i) {
    for (Index j = 0; j < own.cols(); ++j) {
      if (std::isfinite(own(i, j))) continue;
      fail(name, ": ", what, " must be finite, got ", own(i, j), " at [", i, ", ", j, "]");
    }
  }
  return own;
}

Tensor write(const Matrix& rows) {
  Tensor out = at::empty({rows.rows(), rows.cols()}, at::kDouble);
  Eigen::Map<Matrix>(out.mutable_data_ptr<double>(), rows.rows(), rows.cols()) = rows;
  return out;
}

Tensor write(const std::vector<int64_t>& values) {
  Tensor out = at::empty({static_cast<int64_t>(values.size())}, at::kLong);
  std::copy(values.begin(), values.end(), out.mutable_data_ptr<int64_t>());
  return out;
}

// Points less their mean: distances stay what they are, and squares of large means would cost
// their digits.
struct Points {
  Matrix rows;
  Eigen::RowVectorXd mean;

  Points(const char* name, const Tensor& points)
      : rows(read(name, "points", points)), mean(rows.colwise().mean()) {
    rows.rowwise() -= mean;
  }
};

struct Solution {
  std::vector<int64_t> labels;
  Matrix centers;
  double inertia = 0;
  int64_t moves = 0;
};

// Gives each point its nearest centre; whether any of them changed.
bool assign(const Matrix& points, const Matrix& centers, std::vector<int64_t>& labels) {
  const Eigen::RowVectorXd squares = centers.rowwise().squaredNorm().transpose();
  bool changed = false;
  Matrix far;  // squared distances, less the square of the point, which is the same for all centres
  for (Index first = 0; first < points.rows(); first += kBlock) {
    const Index count = std::min(kBlock, points.rows() - first);
    far.noalias() = -2 * points.middleRows(first, count) * centers.transpose();
    far.rowwise() += squares;
    for (Index i = 0; i < count; ++i) {
      Index best = 0;
      for (Index k = 1; k < far.cols(); ++k) best = far(i, k) < far(i, best) ? k : best;
      int64_t& label = labels[static_cast<size_t>(first + i)];
      changed |= label != best;
      label = best;
    }
  }
  return changed;
}

VectorXd squared_distances(const Matrix& points, const Matrix& centers,
                           const std::vector<int64_t>& labels) {
  VectorXd found(points.rows());
  for (Index i = 0; i < points.rows(); ++i)
    found[i] = (points.row(i) - centers.row(labels[static_cast<size_t>(i)])).squaredNorm();
  return found;
}

std::vector<int64_t> count(const std::vector<int64_t>& labels, Index clusters) {
  std::vector<int64_t> sizes(static_cast<size_t>(clusters));
  for (const int64_t label : labels) ++sizes[static_cast<size_t>(label)];
  return sizes;
}

// Moves the farthest points that do not lie alone into clusters that have none.
void fill_empty(const Matrix& points, const Matrix& centers, std::vector<int64_t>& labels,
                std::vector<int64_t>& sizes) {
  if (std::find(sizes.begin(), sizes.end(), 0) == sizes.end()) return;
  VectorXd far = squared_distances(points, centers, labels);
  for (size_t empty = 0; empty < sizes.size(); ++empty) {
    if (sizes[empty] > 0) continue;
    Index farthest = kNone;
    for (Index i = 0; i < far.size(); ++i) {
      const bool alone = sizes[static_cast<size_t>(labels[static_cast<size_t>(i)])] == 1;
      if (!alone && far[i] > (farthest == kNone ? 0 : far[farthest])) farthest = i;
    }
    if (farthest == kNone) return;
    int64_t& label = labels[static_cast<size_t>(farthest)];
    --sizes[static_cast<size_t>(label)];
    label = static_cast<int64_t>(empty);
    sizes[empty] = 1;
  }
}

void move(const Matrix& points, std::vector<int64_t>& labels, Matrix& centers) {
  std::vector<int64_t> sizes = count(labels, centers.rows());
  fill_empty(points, centers, labels, sizes);
  Matrix sums = Matrix::Zero(centers.rows(), centers.cols());
  for (Index i = 0; i < points.rows(); ++i)
    sums.row(labels[static_cast<size_t>(i)]) += points.row(i);
  for (Index k = 0; k < centers.rows(); ++k) {
    const int64_t size = sizes[static_cast<size_t>(k)];
    if (size > 0) centers.row(k) = sums.row(k) / static_cast<double>(size);
  }
}

Solution lloyd(const Matrix& points, Matrix centers, int64_t iterations) {
  Solution own;
  own.labels.assign(static_cast<size_t>(points.rows()), kNone);
  while (assign(points, centers, own.labels) && own.moves < iterations) {
    move(points, own.labels, centers);
    ++own.moves;
  }
  own.inertia = squared_distances(points, centers, own.labels).sum();
  own.centers = std::move(centers);
  return own;
}

// Uniform in [0, 1), the same on every machine, which std::uniform_real_distribution is not.
double uniform(std::mt19937_64& engine) {
  return std::ldexp(static_cast<double>(engine() >> 11), -53);
}

std::vector<int64_t> plus_plus(const Matrix& points, int64_t clusters, uint64_t seed,
                               int64_t restart) {
  std::seed_seq words{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32),
                      static_cast<uint32_t>(restart)};
  std::mt19937_64 engine(words);
  Index next = static_cast<Index>(uniform(engine) * static_cast<double>(points.rows()));
  std::vector<int64_t> seeds{next};
  VectorXd nearest = (points.rowwise() - points.row(next)).rowwise().squaredNorm();
  while (static_cast<int64_t>(seeds.size()) < clusters) {
    const double total = nearest.sum();
    if (!(total > 0)) break;  // every point equals a seed
    double left = uniform(engine) * total;
    for (Index i = 0; i < points.rows(); ++i) {
      if (nearest[i] <= 0) continue;
      next = i;  // also where rounding leaves something after the last one
      left -= nearest[i];
      if (left < 0) break;
    }
    seeds.push_back(next);
    nearest =
        nearest.cwiseMin((points.rowwise() - points.row(next)).rowwise().squaredNorm()).eval();
  }
  return seeds;
}

Matrix rows_of(const Matrix& points, const std::vector<int64_t>& places) {
  Matrix rows(static_cast<Index>(places.size()), points.cols());
  for (size_t k = 0; k < places.size(); ++k)
    rows.row(static_cast<Index>(k)) = points.row(places[k]);
  return rows;
}

KMeans told(const Points& points, const Solution& own) {
  return {write(own.labels), write(own.centers.rowwise() + points.mean), own.inertia, own.moves};
}

void check_clusters(const char* name, const Matrix& points, int64_t clusters) {
  VPD_CHECK(clusters >= 1 && clusters <= points.rows(), name,
            ": the number of clusters must be in 1..", points.rows(),
            ", the number of points, got ", clusters);
}

}  // namespace

KMeans kmeans(const Tensor& points, const Tensor& centroids, int64_t iterations) {
  const Points own("kmeans", points);
  Matrix centers = read("kmeans", "centroids", centroids);
  VPD_CHECK(centers.cols() == own.rows.cols(), "kmeans: centroids must be [k, ", own.rows.cols(),
            "], as long as the points, got ", centroids.sizes());
  check_clusters("kmeans", own.rows, centers.rows());
  VPD_CHECK(iterations >= 1, "kmeans: iterations must be at least 1, got ", iterations);
  centers.rowwise() -= own.mean;
  return told(own, lloyd(own.rows, std::move(centers), iterations));
}

KMeans kmeans(const Tensor& points, int64_t clusters, uint64_t seed, int64_t restarts,
              int64_t iterations) {
  const Points own("kmeans", points);
  check_clusters("kmeans", own.rows, clusters);
  VPD_CHECK(restarts >= 1 && iterations >= 1,
            "kmeans: restarts and iterations must be at least 1, got ", restarts, " and ",
            iterations);
  std::vector<Solution> found(static_cast<size_t>(restarts));
  at::parallel_for(0, restarts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const std::vector<int64_t> seeds = plus_plus(own.rows, clusters, seed, i);
      found[static_cast<size_t>(i)] = lloyd(own.rows, rows_of(own.rows, seeds), iterations);
    }
  });
  return told(own, *std::min_element(found.begin(), found.end(), [](const auto& a, const auto& b) {
                return a.inertia < b.inertia;
              }));
}

Tensor kmeans_seeds(const Tensor& points, int64_t clusters, uint64_t seed, int64_t restart) {
  const Points own("kmeans_seeds", points);
  check_clusters("kmeans_seeds", own.rows, clusters);
  return write(plus_plus(own.rows, clusters, seed, restart));
}

Tensor principal_components(const Tensor& points, int64_t dims) {
  const Points own("principal_components", points);
  const Matrix& x = own.rows;
  const Index most = std::min(x.rows(), x.cols());
  VPD_CHECK(dims >= 1 && dims <= most, "principal_components: dims must be in 1..", most, " for ",
            x.rows(), " points of ", x.cols(), " values, got ", dims);
  // Of two matrices with the same eigenvalues the smaller one.
  const bool wide = x.cols() > x.rows();
  Eigen::MatrixXd products = Eigen::MatrixXd::Zero(most, most);
  if (wide) {
    products.selfadjointView<Eigen::Lower>().rankUpdate(x);
  } else {
    products.selfadjointView<Eigen::Lower>().rankUpdate(x.transpose());
  }
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(products);
  VPD_CHECK(solver.info() == Eigen::Success,
            "principal_components: eigenvectors of the points' covariance were not found");
  Matrix scores(x.rows(), dims);
  for (Index j = 0; j < dims; ++j) {
    const Index at = most - 1 - j;  // eigenvalues ascend
    const double size = std::sqrt(std::max(0.0, solver.eigenvalues()[at]));
    if (wide) {
      scores.col(j) = size * solver.eigenvectors().col(at);
    } else {
      scores.col(j) = x * solver.eigenvectors().col(at);
    }
    Index largest;
    scores.col(j).cwiseAbs().maxCoeff(&largest);
    if (scores(largest, j) < 0) scores.col(j) *= -1;
  }
  return write(scores);
}

}  // namespace vpd::ops
