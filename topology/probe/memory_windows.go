package probe

import (
	"unsafe"

	"golang.org/x/sys/windows"
)

// systemMemory asks GlobalMemoryStatusEx for the physical memory.
func systemMemory() (total, available *uint64) {
	// MEMORYSTATUSEX of sysinfoapi.h.
	status := struct {
		length, load                                             uint32
		totalPhys, availPhys                                     uint64
		totalPage, availPage, totalVirt, availVirt, availVirtExt uint64
	}{}
	status.length = uint32(unsafe.Sizeof(status))
	proc := windows.NewLazySystemDLL("kernel32.dll").NewProc("GlobalMemoryStatusEx")
	if ok, _, _ := proc.Call(uintptr(unsafe.Pointer(&status))); ok == 0 {
		return nil, nil
	}
	return &status.totalPhys, &status.availPhys
}
