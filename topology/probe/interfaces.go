package probe

import (
	"fmt"
	"net"
	"net/netip"

	"gangway/topology"
)

// liveInterfaces lists this process's interfaces with their addresses; nil
// and a warning when they can't be had.
func liveInterfaces() ([]topology.Interface, string) {
	list, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Sprintf("network interfaces: %v", err)
	}
	out := make([]topology.Interface, 0, len(list))
	warning := ""
	for _, i := range list {
		ti := topology.Interface{
			Name: i.Name, Index: i.Index, MTU: i.MTU,
			Up:       i.Flags&net.FlagUp != 0 && i.Flags&net.FlagRunning != 0,
			Loopback: i.Flags&net.FlagLoopback != 0,
		}
		addrs, err := i.Addrs()
		if err != nil {
			warning = fmt.Sprintf("addresses of interface %s: %v", i.Name, err)
		}
		for _, a := range addrs {
			ipn, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			ip, ok := netip.AddrFromSlice(ipn.IP)
			bits, size := ipn.Mask.Size()
			if ip = ip.Unmap(); !ok || size == 0 {
				continue
			}
			if ip.Is4() && size == 128 {
				bits -= 96
			}
			ti.Addrs = append(ti.Addrs, netip.PrefixFrom(ip, bits))
		}
		out = append(out, ti)
	}
	return out, warning
}
