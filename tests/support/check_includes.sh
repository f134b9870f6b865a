#!/bin/sh
# check_includes.sh ROOT: says FILE:LINE for each #include that breaks the order of the folders (docs/architecture.md). Exit status 1 if there is one.
#   base <- topology, workloads <- policies <- sim <- analysis <- cli;  sim/mpi is a leaf that only cli includes;
#   a file that is a part has no header, what several parts of a kind share lies in that kind's shared/;  each third party has one door.
set -eu
cd "${1:?usage: check_includes.sh ROOT}"

folders=
for folder in base topology workloads policies sim analysis cli tests bench; do
  [ ! -d "$folder" ] || folders="$folders $folder"
done
# shellcheck disable=SC2086
find $folders -type f \( -name '*.h' -o -name '*.cpp' \) | LC_ALL=C sort | {
  files=$(cat)
  [ -n "$files" ] || { echo "check_includes: no sources in $PWD" >&2; exit 1; }
  # shellcheck disable=SC2086
  awk '
    BEGIN {
      # Which folders a folder may include from; itself always.
      may["base"] = ""
      may["topology"] = "base"
      may["workloads"] = "base"
      may["policies"] = "base topology workloads"
      may["sim"] = "base topology workloads policies"
      may["sim/mpi"] = "base topology workloads policies sim"
      may["analysis"] = "base topology workloads policies sim"
      may["cli"] = "base topology workloads policies sim sim/mpi analysis"
      # Single headers that lie open to one folder more.
      open["workloads", "topology/device.h"] = 1
      # Headers that tell a version and nothing else, for `epsim --version --verbose`.
      version["boost/version.hpp"] = version["google/protobuf/stubs/common.h"] = version["dnnl_version.h"] = 1
      # The door of each third party: includes that start with the first word are for files that match the second.
      split("yaml-cpp boost nlohmann zlib xxhash mpi dnnl oneapi/dnnl google/protobuf CLI omp fmt gtest gmock benchmark simgrid coin lapacke metis", thirds)
      door["yaml-cpp"] = "^base/setting[.]cpp$"
      door["boost"] = "^(topology|analysis)/"
      door["nlohmann"] = "[.]cpp$"
      door["zlib"] = "^base/.*[.]cpp$"
      door["xxhash"] = "^policies/.*[.]cpp$"
      door["mpi"] = "^sim/mpi/"
      door["dnnl"] = door["oneapi/dnnl"] = "^sim/moe/.*[.]cpp$"
      door["omp"] = "^sim/moe/.*[.]cpp$"
      door["google/protobuf"] = "^(analysis/export|workloads/import)/.*[.]cpp$"
      door["CLI"] = "^cli/"
      door["coin"] = door["lapacke"] = door["metis"] = "^policies/solve/.*[.]cpp$"
      door["fmt"] = "."
      door["gtest"] = door["gmock"] = "^tests/"
      door["benchmark"] = "^bench/"
      door["simgrid"] = "^bench/simgrid/"
      parts = "^(topology/cluster|workloads/source|policies/(router|capacity|loss|compression|placement|replica|shared_expert|exchange)|sim/(network|compute))/"
    }
    function complain(text) { print FILENAME ":" FNR ": " text; failed = 1 }
    # The folder of the rules that a path belongs to.
    function home(path,  words) {
      if (path ~ /^sim\/mpi\//) return "sim/mpi"
      split(path, words, "/")
      return words[1]
    }
    function contains(list, word) { return index(" " list " ", " " word " ") > 0 }
    function ours(path,  from, to, kind) {
      if (path ~ /[.]cpp$/) { complain("a source file is included: " path); return }
      if (path ~ /[.]pb[.]h$/) { if (FILENAME !~ /^(analysis\/export|workloads\/import|tests)\//) complain("generated Protobuf headers are for analysis/export/ and workloads/import/ only: " path); return }
      if ((getline line < path) < 0) { complain("there is no " path "; includes are written from the root of the repository"); return }
      close(path)
      from = home(FILENAME)
      to = home(path)
      if (from == "tests" || from == "bench") return
      if (from != to && !contains(may[from], to) && !((from, path) in open)) complain(from "/ may not include " path)
      if (path ~ /\/shared\//) {
        kind = path
        sub(/shared\/.*/, "", kind)
        if (index(FILENAME, kind) != 1) complain("only files in " kind " may include " path)
      }
    }
    function theirs(path,  i, third) {
      for (i in thirds) {
        third = thirds[i]
        if (index(path, third) == 1 && substr(path, length(third) + 1, 1) ~ /[\/._-]/) {
          if (FILENAME !~ door[third] && FILENAME !~ /^(tests|bench)\// && !(path in version && FILENAME == "cli/cli.cpp")) complain("<" path "> is not for this file; the door of " third " is " door[third])
          return
        }
      }
      # What is left is the standard library, whose names have no dot and no slash, POSIX, and what glibc adds.
      if (path ~ /[\/.]/ && path !~ /^(sys\/.*|unistd|fcntl|signal|spawn|malloc|poll|dirent|immintrin)[.]h$/) complain("<" path "> has no door; name one in tests/support/check_includes.sh")
    }
    FNR == 1 && FILENAME ~ parts && FILENAME ~ /[.]h$/ && FILENAME !~ /\/shared\// {
      # A kind of several types keeps its header beside its parts, by the name of the folder.
      split(FILENAME, words, "/")
      if (words[3] != words[2] ".h") complain("a part has no header; what several parts share lies in " words[1] "/" words[2] "/shared/")
    }
    /^[ \t]*#[ \t]*include[ \t]*"/ { split($0, quoted, "\""); ours(quoted[2]) }
    /^[ \t]*#[ \t]*include[ \t]*</ { split($0, angled, /[<>]/); theirs(angled[2]) }
    END { exit failed }
  ' $files
}
