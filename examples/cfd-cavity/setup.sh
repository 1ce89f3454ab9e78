# Sourced on every node before the solver, by gangway run --setup. Debian's
# OpenFOAM needs no more than to know where its files are (the bashrc it ships
# looks for scripts that the package does not have).
export WM_PROJECT_DIR=/usr/share/openfoam
# Lab hosts share a kernel; a claim to cross the network needs TCP, nothing else.
export OMPI_MCA_btl=tcp,self
# The four hosts share a few cores, which Open MPI on none of them can know: a
# rank that waits must give its core away.
export OMPI_MCA_mpi_yield_when_idle=1
