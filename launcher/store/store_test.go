package store_test

import (
	"testing"

	"gangway/launcher/store"
	"gangway/launcher/store/storetest"
)

func TestMemory(t *testing.T) {
	storetest.Run(t, func(*testing.T) (store.Store, func() store.Store) { return store.NewMemory(), nil })
}
