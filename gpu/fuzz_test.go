package gpu

import (
	"encoding/json"
	"testing"
	"testing/fstest"
	"unicode/utf8"

	"gangway/topology"
)

// sound holds for whatever a reader made of any text.
func sound(t *testing.T, r Result) {
	t.Helper()
	if len(r.GPUs) > maxGPUs {
		t.Fatalf("%d GPUs", len(r.GPUs))
	}
	for _, g := range r.GPUs {
		if g.Index < 0 || g.Index > 9999 || g.Memory != nil && (*g.Memory == 0 || *g.Memory > 1<<52) {
			t.Fatalf("%+v", g)
		}
		if g.PCI != "" {
			if a, ok := Address(g.PCI); !ok || a != g.PCI {
				t.Fatalf("address %q", g.PCI)
			}
		}
	}
	for _, w := range r.Warnings {
		if !utf8.ValidString(w) {
			t.Fatalf("warning %q", w)
		}
	}
	var n topology.Node
	Merge(&n, r)
	n.GPUSlots()
	if _, err := json.Marshal(n); err != nil {
		t.Fatal(err)
	}
}

func FuzzReadXML(f *testing.F) {
	mig := healthy(1)
	mig.mig, mig.migs = "Enabled", migXML
	f.Add([]byte(document(healthy(0), mig)))
	f.Add([]byte(document(healthy(0))[:900]))
	f.Add([]byte("Unable to determine the device handle for GPU3: 0000:B7:00.0: Unknown Error\n<nvidia_smi_log><gpu id=\"[GPU is lost]\"></gpu>"))
	f.Add([]byte("\x1b[1m<nvidia_smi_log>\r\n<gpu><uuid>&#x1;</uuid><mig_devices><mig_device><index>-1</index></mig_device></mig_devices></gpu></nvidia_smi_log>"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, _ := ReadXML(b)
		sound(t, r)
	})
}

func FuzzReadCSV(f *testing.F) {
	f.Add([]byte("index, uuid, memory.total [MiB]\n0, GPU-a, 81559 MiB\n1, [GPU is lost], [N/A]\n"))
	f.Add([]byte("uuid,index\n\"a\nb\",1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, _ := ReadCSV(b)
		sound(t, r)
	})
}

func FuzzReadText(f *testing.F) {
	f.Add([]byte(migList))
	f.Add([]byte("\tGPU0\tGPU1\nGPU0\tX\tOK\nGPU1\tCNS\tX\n"))
	f.Add([]byte("[1] NVRM: Xid (PCI:0000:3b:00): 79, pid=1\nNVRM: loading NVIDIA\n"))
	f.Add(recorded(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := Result{Source: "nvidia-smi", GPUs: []topology.GPU{{UUID: "GPU-00000000-0000-0000-0000-000000000000", NUMA: -1}}}
		r.addList(ReadList(b))
		_ = r.addMatrix(b)
		p, _ := ReadP2P(b)
		r.addP2P(p)
		addXIDs(r.GPUs, ReadXIDs(string(b)))
		if !utf8.ValidString(clean(b)) {
			t.Fatal("not plain text")
		}
		sound(t, r)
	})
}

func FuzzReadDocument(f *testing.F) {
	f.Add([]byte(`{"schema":1,"gpus":[{"index":0,"vendor":"nvidia","numa":-1,"pci":"0000:19:00.0","memory":1048576}],"links":[{"a":"GPU0","b":"GPU1","class":"NV18"}]}`))
	f.Add([]byte(`{"schema":2}`))
	f.Add([]byte(`{"schema":1,"error":"x"}{`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := ReadDocument(b)
		if err == nil {
			sound(t, d.result())
		}
	})
}

func FuzzReadKFD(f *testing.F) {
	f.Add([]byte("simd_count 440\nlocation_id 10496\nunique_id 5\ndomain 0\ngfx_target_version 90010\n"), []byte("type 11\nnode_to 1\n"))
	f.Add([]byte("simd_count 1\nlocation_id 18446744073709551615\ndomain 18446744073709551615\n"), []byte("heap_type 1\nsize_in_bytes 9\n"))
	f.Fuzz(func(t *testing.T, props, other []byte) {
		m := fstest.MapFS{}
		for name, b := range map[string][]byte{"0/properties": props, "1/properties": props, "0/io_links/0/properties": other, "0/mem_banks/0/properties": other,
			"0/gpu_id": []byte("1"), "1/gpu_id": other} {
			m[kfdNodes+"/"+name] = &fstest.MapFile{Data: b}
		}
		for _, name := range []string{"ras/umc_err_count", "ras/gpu_vram_bad_pages", "mem_info_vram_total", "product_name"} {
			m["bus/pci/devices/0000:29:00.0/"+name] = &fstest.MapFile{Data: other}
		}
		sound(t, ReadKFD(m))
	})
}
