//go:build linux

#include "go_asm.h"
#include "textflag.h"

// Numbers of the x86-64 kernel's syscall_64.tbl.
#define SYS_lseek         8
#define SYS_sched_yield   24
#define SYS_wait4         61
#define SYS_kill          62
#define SYS_clock_gettime 228
#define SYS_exit_group    231
#define SYS_waitid        247
#define SYS_clone3        435

#define CLOCK_MONOTONIC 1
#define P_PID           1
#define WEXITED_WNOWAIT 0x01000004
#define EINTR           4
#define SIGKILL         9
#define SEEK_END        2

// func walk(at *command, bound uint64, waited *atomic.Uint32) (last *command)
//
// BX is the command dealt with last, R12 the one at hand, R13 a process id or
// a step of the child.
TEXT ·walk(SB), NOSPLIT, $0-32
	MOVQ	at+0(FP), BX

next:
	MOVQ	command_next(BX), R12
	TESTQ	R12, R12
	JZ	out
	MOVQ	bound+8(FP), AX
	CMPQ	AX, command_bound(R12)
	JNE	out
	MOVL	$const_queued, AX
	MOVL	$const_starting, CX
	LOCK
	CMPXCHGL	CX, command_state(R12)
	JEQ	start
	MOVL	$const_skipped, CX
	XCHGL	CX, command_state(R12)
	MOVQ	R12, BX
	JMP	next

start:
	MOVQ	R12, BX
	MOVL	$SYS_clock_gettime, AX
	MOVL	$CLOCK_MONOTONIC, DI
	LEAQ	command_begin(BX), SI
	SYSCALL
	MOVL	$SYS_clone3, AX
	LEAQ	command_clone(BX), DI
	MOVL	$cloneArgs__size, SI
	SYSCALL
	TESTQ	AX, AX
	JZ	child
	JS	nochild
	MOVQ	AX, R13
	MOVL	$const_running, CX
	XCHGL	CX, command_state(BX)

wait:
	MOVL	$SYS_waitid, AX
	MOVL	$P_PID, DI
	MOVQ	R13, SI
	XORL	DX, DX
	MOVL	$WEXITED_WNOWAIT, R10
	XORL	R8, R8
	SYSCALL
	CMPQ	AX, $-EINTR
	JEQ	wait
	MOVL	$SYS_clock_gettime, AX
	MOVL	$CLOCK_MONOTONIC, DI
	LEAQ	command_finish(BX), SI
	SYSCALL

	// A signal that is on its way must not meet the next owner of the pid.
hold:
	MOVL	$const_running, AX
	MOVL	$const_reaping, CX
	LOCK
	CMPXCHGL	CX, command_state(BX)
	JEQ	rest
	MOVL	$SYS_sched_yield, AX
	SYSCALL
	JMP	hold

	// The rest of its group; the group's number is taken as long as it is a zombie.
rest:
	MOVL	$SYS_kill, AX
	MOVQ	R13, DI
	NEGQ	DI
	MOVL	$SIGKILL, SI
	SYSCALL
	MOVL	$SYS_lseek, AX
	MOVLQSX	command_stdout(BX), DI
	XORL	SI, SI
	MOVL	$SEEK_END, DX
	SYSCALL
	MOVQ	AX, command_stdoutEnd(BX)
	MOVL	$SYS_lseek, AX
	MOVLQSX	command_stderr(BX), DI
	XORL	SI, SI
	MOVL	$SEEK_END, DX
	SYSCALL
	MOVQ	AX, command_stderrEnd(BX)

reap:
	MOVL	$SYS_wait4, AX
	MOVQ	R13, DI
	LEAQ	command_status(BX), SI
	XORL	DX, DX
	LEAQ	command_usage(BX), R10
	SYSCALL
	CMPQ	AX, $-EINTR
	JEQ	reap
	TESTQ	AX, AX
	JS	lost
	CMPL	command_errno(BX), $0
	JNE	fail
	MOVL	$const_ended, CX
	XCHGL	CX, command_state(BX)
	MOVQ	waited+16(FP), AX
	CMPL	(AX), $0
	JEQ	next

out:
	MOVQ	BX, last+24(FP)
	RET

nochild:
	NEGQ	AX
	MOVL	AX, command_errno(BX)
	MOVL	$const_atClone, command_left(BX)
	JMP	fail

lost:
	NEGQ	AX
	MOVL	AX, command_errno(BX)
	MOVL	$const_atWait, command_left(BX)

fail:
	MOVL	$const_failed, CX
	XCHGL	CX, command_state(BX)
	JMP	out

	// The child has this process's memory until its exec, and touches no stack.
child:
	LEAQ	command_steps(BX), R12
	MOVL	command_count(BX), R13
	XORL	R9, R9

step:
	MOVQ	step_trap(R12), AX
	MOVQ	step_a(R12), DI
	MOVQ	step_b(R12), SI
	MOVQ	step_c(R12), DX
	MOVQ	step_d(R12), R10
	XORL	R8, R8
	CMPQ	step_chain(R12), $0
	JEQ	call
	MOVQ	R9, DI
call:
	SYSCALL
	CMPQ	AX, $0xfffffffffffff001
	JCC	broken
	CMPQ	step_want(R12), $0
	JEQ	good
	CMPQ	step_want(R12), AX
	JNE	exit
good:
	MOVQ	AX, R9
	ADDQ	$step__size, R12
	DECL	R13
	JNZ	step
	JMP	exit

broken:
	MOVL	R13, command_left(BX)
	NEGQ	AX
	MOVL	AX, command_errno(BX)

exit:
	MOVL	$127, DI
	MOVL	$SYS_exit_group, AX
	SYSCALL
	JMP	exit
