// The operator library torch.ops.vpd: each op adds its schema in its own file.
#include <torch/library.h>

TORCH_LIBRARY(vpd, library) { (void)library; }
