package main

import "syscall"

const usr1 = syscall.SIGUSR1
