public class Main {
    static String reverse(String s) {
        StringBuilder out = new StringBuilder();
        for (int i = s.length() - 1; i >= 0; i--) out.append(s.charAt(i));
        return out.toString();
    }

    static int count(String s, char wanted) {
        int n = 0;
        for (char c : s.toCharArray()) if (c == wanted) n++;
        return n;
    }

    public static void main(String[] args) {
        String text = "if (x) { /* no comment */ } // 10";
        int ten = 10;
        System.out.println(reverse(text) + count(text, '/') + '"' + '{');
        System.out.println("n" + 1 + 2 + " " + (1 + 2) + " ß \u00e9 " + ten);
        String block = """
            int i = 10;
              "quoted" // text
            """;
        System.out.print(block);
        System.out.println(1 + 2 + "x" + 'a' + (char) ('a' + 1));
    }
}
