//go:build linux

#include "go_asm.h"
#include "textflag.h"

// Numbers of the kernel's asm-generic/unistd.h.
#define SYS_lseek         62
#define SYS_exit_group    94
#define SYS_waitid        95
#define SYS_clock_gettime 113
#define SYS_sched_yield   124
#define SYS_kill          129
#define SYS_wait4         260
#define SYS_clone3        435

#define CLOCK_MONOTONIC 1
#define P_PID           1
#define WEXITED_WNOWAIT 0x01000004
#define EINTR           4
#define SIGKILL         9
#define SEEK_END        2

// func walk(at *command, bound uint64, waited *atomic.Uint32) (last *command)
//
// R19 is the command dealt with last, R20 the one at hand, R21 a process id or
// a step of the child. Atomic accesses are load-acquire and store-release
// pairs, which every arm64 has.
TEXT ·walk(SB), NOSPLIT, $0-32
	MOVD	at+0(FP), R19

next:
	ADD	$command_next, R19, R1
	LDAR	(R1), R20
	CBZ	R20, out
	MOVD	bound+8(FP), R1
	MOVD	command_bound(R20), R2
	CMP	R1, R2
	BNE	out
	ADD	$command_state, R20, R1
	MOVW	$const_starting, R3

claim:
	LDAXRW	(R1), R2
	CMPW	$const_queued, R2
	BNE	skip
	STLXRW	R3, (R1), R4
	CBNZW	R4, claim
	MOVD	R20, R19
	JMP	start

skip:
	MOVW	$const_skipped, R3
	STLRW	R3, (R1)
	MOVD	R20, R19
	JMP	next

start:
	MOVD	$SYS_clock_gettime, R8
	MOVD	$CLOCK_MONOTONIC, R0
	ADD	$command_begin, R19, R1
	SVC
	MOVD	$SYS_clone3, R8
	ADD	$command_clone, R19, R0
	MOVD	$cloneArgs__size, R1
	SVC
	CBZ	R0, child
	CMP	$0, R0
	BLT	nochild
	MOVD	R0, R21
	ADD	$command_state, R19, R1
	MOVW	$const_running, R3
	STLRW	R3, (R1)

wait:
	MOVD	$SYS_waitid, R8
	MOVD	$P_PID, R0
	MOVD	R21, R1
	MOVD	ZR, R2
	MOVD	$WEXITED_WNOWAIT, R3
	MOVD	ZR, R4
	SVC
	CMN	$EINTR, R0
	BEQ	wait
	MOVD	$SYS_clock_gettime, R8
	MOVD	$CLOCK_MONOTONIC, R0
	ADD	$command_finish, R19, R1
	SVC

	// A signal that is on its way must not meet the next owner of the pid.
hold:
	ADD	$command_state, R19, R1
	MOVW	$const_reaping, R3
	LDAXRW	(R1), R2
	CMPW	$const_running, R2
	BNE	yield
	STLXRW	R3, (R1), R4
	CBNZW	R4, hold
	JMP	rest

yield:
	CLREX
	MOVD	$SYS_sched_yield, R8
	SVC
	JMP	hold

	// The rest of its group; the group's number is taken as long as it is a zombie.
rest:
	MOVD	$SYS_kill, R8
	NEG	R21, R0
	MOVD	$SIGKILL, R1
	SVC
	MOVD	$SYS_lseek, R8
	MOVW	command_stdout(R19), R0
	MOVD	ZR, R1
	MOVD	$SEEK_END, R2
	SVC
	MOVD	R0, command_stdoutEnd(R19)
	MOVD	$SYS_lseek, R8
	MOVW	command_stderr(R19), R0
	MOVD	ZR, R1
	MOVD	$SEEK_END, R2
	SVC
	MOVD	R0, command_stderrEnd(R19)

reap:
	MOVD	$SYS_wait4, R8
	MOVD	R21, R0
	ADD	$command_status, R19, R1
	MOVD	ZR, R2
	ADD	$command_usage, R19, R3
	SVC
	CMN	$EINTR, R0
	BEQ	reap
	CMP	$0, R0
	BLT	lost
	MOVW	command_errno(R19), R1
	CBNZW	R1, fail
	ADD	$command_state, R19, R1
	MOVW	$const_ended, R3
	STLRW	R3, (R1)
	// What was stored must be seen by whoever sets waited after this load.
	DMB	$11
	MOVD	waited+16(FP), R1
	LDARW	(R1), R2
	CBZW	R2, next

out:
	MOVD	R19, last+24(FP)
	RET

nochild:
	NEG	R0, R0
	MOVW	R0, command_errno(R19)
	MOVW	$const_atClone, R1
	MOVW	R1, command_left(R19)
	JMP	fail

lost:
	NEG	R0, R0
	MOVW	R0, command_errno(R19)
	MOVW	$const_atWait, R1
	MOVW	R1, command_left(R19)

fail:
	ADD	$command_state, R19, R1
	MOVW	$const_failed, R3
	STLRW	R3, (R1)
	JMP	out

	// The child has this process's memory until its exec, and touches no stack.
child:
	ADD	$command_steps, R19, R20
	MOVWU	command_count(R19), R21
	MOVD	ZR, R22

step:
	MOVD	step_trap(R20), R8
	MOVD	step_a(R20), R0
	MOVD	step_b(R20), R1
	MOVD	step_c(R20), R2
	MOVD	step_d(R20), R3
	MOVD	ZR, R4
	MOVD	ZR, R5
	MOVD	step_chain(R20), R6
	CBZ	R6, call
	MOVD	R22, R0
call:
	SVC
	CMN	$4095, R0
	BCS	broken
	MOVD	step_want(R20), R6
	CBZ	R6, good
	CMP	R6, R0
	BNE	exit
good:
	MOVD	R0, R22
	ADD	$step__size, R20
	SUBS	$1, R21
	BNE	step
	JMP	exit

broken:
	MOVW	R21, command_left(R19)
	NEG	R0, R0
	MOVW	R0, command_errno(R19)

exit:
	MOVD	$127, R0
	MOVD	$SYS_exit_group, R8
	SVC
	JMP	exit
