#pragma once

/// Marks a function whose loops are worth compiling for several vector widths; the loader picks the widest the machine has. The source's own IEEE operations
/// are kept in each (no fused multiply-add but where one is written, no reordering), so results have the same bits everywhere. Sanitisers start too late for
/// the loader's choice, so they get one version.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define EPSIM_VECTORISE __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define EPSIM_VECTORISE
#endif
