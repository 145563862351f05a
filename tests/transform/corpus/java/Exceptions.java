public class Main {
    static int parse(String s, int missing) {
        try {
            int n = Integer.parseInt(s);
            if (n < 0) throw new IllegalArgumentException("negative " + n);
            return n;
        } catch (NumberFormatException e) {
            return missing;
        } catch (IllegalArgumentException e) {
            System.out.println(e.getMessage());
            return -missing;
        } finally {
            System.out.print("[" + s + "] ");
        }
    }

    static class Resource implements AutoCloseable {
        final String name;
        Resource(String name) { this.name = name; System.out.print("open " + name + " "); }
        public void close() { System.out.print("close " + name + " "); }
    }

    static int use(int n) {
        int r = 0;
        try (Resource a = new Resource("a"); Resource b = new Resource("b")) {
            while (n > 0) { r += n; n--; if (r > 10) throw new RuntimeException(a.name + b.name); }
        } catch (RuntimeException e) {
            r = -1;
        }
        return r;
    }

    public static void main(String[] args) {
        System.out.println(parse("12", 5) + " " + parse("x", 5) + " " + parse("-3", 5));
        System.out.println(use(2) + " " + use(9));
        int[] values = {1, 2};
        try { values[2] = 1; } catch (ArrayIndexOutOfBoundsException e) { System.out.println("out"); }
    }
}
