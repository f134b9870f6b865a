#!/bin/sh
# check_includes_test.sh FOLDER: plants each kind of violation in a small tree and expects check_includes.sh to name its file and line, and nothing else.
set -eu
check=$(cd "$(dirname "$0")" && pwd)/check_includes.sh
tree=${1:?usage: check_includes_test.sh FOLDER}
failures=0

fresh() {
  rm -rf "$tree"
  mkdir -p "$tree/base" "$tree/topology/cluster" "$tree/workloads/source" "$tree/policies/placement/shared" "$tree/policies/router" "$tree/sim/network" "$tree/sim/mpi" "$tree/analysis" "$tree/cli" "$tree/tests"
  for header in base/check topology/topology topology/device workloads/model policies/plan policies/placement/shared/packing sim/run sim/network/network sim/mpi/execute analysis/measure cli/cli; do
    echo '#pragma once' >"$tree/$header.h"
  done
  printf '#include "base/check.h"\n#include <yaml-cpp/yaml.h>\n' >"$tree/base/setting.cpp"
  printf '#include <sys/stat.h>\n#include <unistd.h>\n#include <vector>\n#include "topology/device.h"\n' >"$tree/workloads/import.cpp"
  printf '#include "policies/placement/shared/packing.h"\n#include "policies/plan.h"\n#include <fmt/format.h>\n' >"$tree/policies/placement/eplb.cpp"
  printf '#include "sim/mpi/execute.h"\n#include "analysis/measure.h"\n#include <CLI/CLI.hpp>\n#include <dnnl_version.h>\n' >"$tree/cli/cli.cpp"
  printf '#include "sim/run.h"\n#include <mpi.h>\n' >"$tree/sim/mpi/execute.cpp"
  printf '#include <gtest/gtest.h>\n#include "policies/placement/shared/packing.h"\n' >"$tree/tests/a_test.cpp"
}

# forbids FILE LINE_OF_TEXT: the text, as the second line of the file, is a violation.
forbids() {
  fresh
  printf '// first line\n%s\n' "$2" >"$tree/$1"
  if found=$(sh "$check" "$tree"); then
    echo "not seen: $1 with $2"
    failures=1
  elif [ "$(echo "$found" | grep -c '')" -ne 1 ] || [ "${found#"$1":2: }" = "$found" ]; then
    echo "wrong report for $1 with $2: $found"
    failures=1
  fi
}

fresh
sh "$check" "$tree" || { echo "a clean tree is refused"; failures=1; }
forbids base/x.cpp '#include "topology/topology.h"'
forbids topology/x.cpp '#include "workloads/model.h"'
forbids workloads/x.cpp '#include "topology/topology.h"'
forbids policies/x.cpp '#include "sim/run.h"'
forbids sim/x.h '  #  include "analysis/measure.h"'
forbids sim/x.cpp '#include "sim/mpi/execute.h"'
forbids analysis/x.cpp '#include "sim/mpi/execute.h"'
forbids analysis/x.cpp '#include "cli/cli.h"'
forbids policies/router/x.cpp '#include "policies/placement/shared/packing.h"'
forbids policies/x.cpp '#include "policies/placement/eplb.cpp"'
forbids sim/x.cpp '#include "run.h"'
forbids base/x.cpp '#include <yaml-cpp/yaml.h>'
forbids policies/x.cpp '#include <boost/graph/adjacency_list.hpp>'
forbids analysis/x.h '#include <nlohmann/json.hpp>'
forbids sim/x.cpp '#include <mpi.h>'
forbids sim/x.cpp '#include <oneapi/dnnl/dnnl.hpp>'
forbids analysis/x.cpp '#include "analysis/export/trace.pb.h"'
forbids sim/x.cpp '#include <CLI/CLI.hpp>'
forbids base/x.cpp '#include <gtest/gtest.h>'
forbids sim/x.cpp '#include <dnnl_version.h>'
forbids base/x.cpp '#include <Eigen/Dense>'
forbids base/x.cpp '#include <cblas.h>'
fresh
echo '#pragma once' >"$tree/policies/placement/eplb.h"
if found=$(sh "$check" "$tree") || [ "${found#policies/placement/eplb.h:1: }" = "$found" ]; then
  echo "a header of a part is not seen: $found"
  failures=1
fi
rm -rf "$tree"
exit $failures
