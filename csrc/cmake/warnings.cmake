add_library(vpd_warnings INTERFACE)
target_compile_options(vpd_warnings INTERFACE -Wall -Wextra $<$<BOOL:${VPD_WERROR}>:-Werror>)
