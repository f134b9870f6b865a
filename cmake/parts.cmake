# epsim_library(NAME [FOLDER dir] [LINKS lib...] [PARTS kind...] [EXCLUDE path...])
# Builds epsim_NAME from the .cpp files of a folder. Each kind in PARTS is a sub-folder where a file name is a part's name: the file defines
# `PRODUCT NAMESPACE::file_name(Params&, ...)`, and a table of them is written here, so a part is added by adding one file.
function(epsim_library name)
  cmake_parse_arguments(A "" "FOLDER" "LINKS;PARTS;EXCLUDE" ${ARGN})
  if(NOT A_FOLDER)
    set(A_FOLDER ${name})
  endif()
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR} ${A_FOLDER}/*.cpp)
  foreach(path ${A_EXCLUDE})
    list(FILTER sources EXCLUDE REGEX "^${A_FOLDER}/${path}(/|$)")
  endforeach()
  file(GLOB protos CONFIGURE_DEPENDS ${A_FOLDER}/*/*.proto)
  foreach(kind ${A_PARTS})
    epsim_part_table(${A_FOLDER} ${kind})
    list(APPEND sources ${PROJECT_BINARY_DIR}/parts/${kind}.cpp)
  endforeach()
  add_library(epsim_${name} STATIC ${sources})
  target_link_libraries(epsim_${name} PUBLIC epsim_options ${A_LINKS})
  if(protos)
    target_include_directories(epsim_${name} PRIVATE ${PROJECT_BINARY_DIR}/proto)
    file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/proto)
    protobuf_generate(TARGET epsim_${name} PROTOS ${protos} IMPORT_DIRS ${PROJECT_SOURCE_DIR} PROTOC_OUT_DIR ${PROJECT_BINARY_DIR}/proto)
  endif()
endfunction()

# What a part of each kind is: header, type, extra maker arguments, and the function that gives the table.
set(epsim_kind_cluster   "topology/topology.h|Topology||builtin_clusters|ClusterCatalog")
set(epsim_kind_source    "workloads/source.h|Source|, const SourceContext*|builtin_sources|SourceCatalog")
set(epsim_kind_router    "policies/routing.h|Router|, const Shape*|builtin_routers|RouterCatalog")
set(epsim_kind_capacity  "policies/capacity.h|Capacity|, const Shape*|builtin_capacities|CapacityCatalog")
set(epsim_kind_loss      "policies/loss.h|Loss|, const Shape*|builtin_losses|LossCatalog")
set(epsim_kind_compression "policies/compression.h|Compression|, const Shape*|builtin_compressions|CompressionCatalog")
set(epsim_kind_placement "policies/placement.h|PlacementPolicy|, const Shape*|builtin_placements|PlacementCatalog")
set(epsim_kind_replica   "policies/replica.h|ReplicaRule|, const Shape*|builtin_replica_rules|ReplicaCatalog")
set(epsim_kind_shared_expert "policies/shared_expert.h|SharedExpertRule|, const Shape*|builtin_shared_expert_rules|SharedExpertCatalog")
set(epsim_kind_exchange  "policies/schedule.h|Exchange|, const Shape*|builtin_exchanges|ExchangeCatalog")
set(epsim_kind_network   "sim/network/network.h|NetworkModel||builtin_networks|NetworkCatalog")
set(epsim_kind_compute   "sim/compute/compute.h|ComputeModel||builtin_computes|ComputeCatalog")

function(epsim_part_table folder kind)
  string(REPLACE "|" ";" facts "${epsim_kind_${kind}}")
  list(GET facts 0 header)
  list(GET facts 1 product)
  list(GET facts 2 arguments)
  list(GET facts 3 function)
  list(GET facts 4 catalog)
  file(GLOB files CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${folder}/${kind}/*.cpp)
  set(declarations "")
  set(additions "")
  foreach(file ${files})
    get_filename_component(part ${file} NAME_WE)
    string(APPEND declarations "${product} ${part}(Params&${arguments});\n")
    string(APPEND additions "  c.add(\"${part}\", parts_${kind}::${part});\n")
  endforeach()
  file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/parts/${kind}.cpp CONTENT
"// Written by cmake/parts.cmake from the files in ${folder}/${kind}.
#include \"${header}\"

namespace epsim {
namespace parts_${kind} {
${declarations}}  // namespace parts_${kind}

${catalog} ${function}() {
  ${catalog} c(\"${kind}\");
${additions}  return c;
}

}  // namespace epsim
" @ONLY)
endfunction()
