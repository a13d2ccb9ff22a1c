#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace vpd::ops {

struct KMeans {
  at::Tensor labels;     // int64 [n]: the nearest centroid of each point, the first among equals
  at::Tensor centroids;  // float64 [k, d]
  double inertia;        // sum of the squared distances between points and their centroids
  int64_t iterations;    // how often the centroids were moved
};

// K-means of points [n, d] of any floating dtype, in float64, on the CPU (Lloyd 1982). `centroids`
// [k, d] are where it starts; it ends when no point changes its cluster, or after `iterations`
// moves. A cluster that loses its last point gets the one farthest from its centroid.
KMeans kmeans(const at::Tensor& points, const at::Tensor& centroids, int64_t iterations);

// The same from the seeds of each of several restarts: the result with the least inertia. The
// number of threads changes nothing.
KMeans kmeans(const at::Tensor& points, int64_t clusters, uint64_t seed, int64_t restarts,
              int64_t iterations);

// Points that k-means++ (Arthur & Vassilvitskii 2007) starts a run from, int64 [k]: the first with
// equal chances, each other in proportion to its squared distance from the nearest one before. Less
// than `clusters` only where fewer points differ.
at::Tensor kmeans_seeds(const at::Tensor& points, int64_t clusters, uint64_t seed, int64_t restart);

// Points [n, d] less their mean, along their `dims` directions of largest variance: float64
// [n, dims], 1 <= dims <= min(n, d). Signs: the value of largest size of each direction is
// positive.
at::Tensor principal_components(const at::Tensor& points, int64_t dims);

}  // namespace vpd::ops
