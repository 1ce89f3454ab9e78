#!/bin/bash
# prepare.sh NU: a case of OpenFOAM's cavity with that viscosity, cut in two.
set -eu
rm -rf "case-$1"
cp -r /usr/share/doc/openfoam-examples/examples/incompressible/icoFoam/cavity/cavity "case-$1"
cd "case-$1"
rm -f system/PDRblockMeshDict
sed -i -E "s/^(nu +).*/\1$1;/" constant/transportProperties
grep -q "^nu .*$1;" constant/transportProperties
cat >system/decomposeParDict <<'X'
FoamFile { version 2.0; format ascii; class dictionary; object decomposeParDict; }
numberOfSubdomains 2;
method simple;
simpleCoeffs { n (2 1 1); delta 0.001; }
X
blockMesh >log.blockMesh
decomposePar >log.decomposePar
