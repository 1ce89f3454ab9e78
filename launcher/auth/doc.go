// Package auth says who is asking.
package auth
