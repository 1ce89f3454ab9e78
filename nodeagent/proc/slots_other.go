//go:build !linux

package proc

// Slots runs nothing.
type Slots struct{}

// NewSlots is unsupported.
func (f *Forker) NewSlots(int, func([]SlotEnd)) (*Slots, error) {
	return nil, unsupported("starting processes")
}

// Start does nothing.
func (s *Slots) Start(int, uint64, SlotCommand) {}

// Signal finds no process.
func (s *Slots) Signal(int, uint64, int) bool { return false }

// Drop has nothing to drop.
func (s *Slots) Drop(int) []uint64 { return nil }

// Close does nothing.
func (s *Slots) Close() {}
