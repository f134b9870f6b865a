# epsim_mpi_test(NAME name PROCESSES n... [TIMEOUT seconds] COMMAND program argument...)
# Adds one test a process count, mpi.NAME.nN, that runs the command under mpirun; and lets no other test run beside one that fills the machine.
function(epsim_mpi_test)
  cmake_parse_arguments(A "" "NAME;TIMEOUT" "PROCESSES;COMMAND" ${ARGN})
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 60)
  endif()
  foreach(n ${A_PROCESSES})
    add_test(NAME mpi.${A_NAME}.n${n} COMMAND ${PROJECT_SOURCE_DIR}/tools/mpirun -n ${n} ${A_COMMAND})
    epsim_mpi_properties(mpi.${A_NAME}.n${n} ${n} ${A_TIMEOUT})
  endforeach()
endfunction()

# What every test that starts MPI processes needs.
function(epsim_mpi_properties test processes timeout)
  set_tests_properties(${test} PROPERTIES TIMEOUT ${timeout} PROCESSORS ${processes} LABELS mpi)
  if(EPSIM_SANITIZE MATCHES "address")
    # Open MPI itself leaks at its end.
    set_tests_properties(${test} PROPERTIES ENVIRONMENT ASAN_OPTIONS=detect_leaks=0)
  endif()
endfunction()
